/* chosen PAGES: where the kernel attaches a segment of so many pages if it may choose, in a program that maps nothing;
 * and where when the kernel's own pages are gone.
 * chosen at ADDR...: shmat at these addresses (hexadecimal): what the kernel says.
 * chosen take: makes one object of each kind, and leaves them. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static void without_kernel_pages(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[256], name[64];
	unsigned long start, end;

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %63s", &start, &end, name) == 3 &&
		    (!strcmp(name, "[vdso]") || !strcmp(name, "[vvar]") || !strcmp(name, "[sigpage]")))
			munmap((void *)start, end - start);
}

int main(int n, char **words)
{
	if (n > 1 && !strcmp(words[1], "take"))
		return shmget(IPC_PRIVATE, 4096, 0600) < 0 || semget(IPC_PRIVATE, 1, 0600) < 0 || msgget(IPC_PRIVATE, 0600) < 0;

	int at = n > 1 && !strcmp(words[1], "at");
	int id = shmget(IPC_PRIVATE, at ? 4096 : atoi(words[1]) * 4096, IPC_CREAT | 0600);
	static char out[4096], *got;

	/* No memory is to be mapped for these. */
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	if (id < 0)
		return 1;
	if (!at) {
		got = shmat(id, NULL, 0);
		printf("%p\n", (void *)got);
		shmdt(got);
		without_kernel_pages();
		got = shmat(id, NULL, 0);
		printf("%p\n", (void *)got);
	}
	for (int i = 2; at && i < n; i++) {
		got = shmat(id, (void *)strtoul(words[i], NULL, 16), 0);
		printf("%s %s\n", words[i], got == (void *)-1 ? strerrorname_np(errno) : "attached");
		if (got != (void *)-1)
			shmdt(got);
	}
	return shmctl(id, IPC_RMID, NULL) != 0;
}
