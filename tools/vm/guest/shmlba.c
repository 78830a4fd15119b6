/* Shows that the kernel enforces SHMLBA: the attach that a plain restorer would make is refused here. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#define LBA (4 * 4096ul)

static int failures;

static void expect(const char *what, int good)
{
	printf("%s: %s\n", what, good ? "ok" : "WRONG");
	failures += !good;
}

int main(void)
{
	char *room, *base, *got;
	int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
	struct shmid_ds ds;

	room = mmap(NULL, 4 * LBA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (id < 0 || room == MAP_FAILED) {
		perror("shmget or mmap");
		return 1;
	}
	base = (char *)(((unsigned long)room + LBA - 1) & ~(LBA - 1));
	munmap(room, 4 * LBA);

	for (int page = 1; page < 4; page++) {
		errno = 0;
		got = shmat(id, base + page * 4096, 0);
		printf("shmat at SHMLBA + %d pages: %p, %s\n", page, (void *)got, strerror(errno));
		expect("EINVAL", got == (void *)-1 && errno == EINVAL);
		errno = 0;
		got = shmat(id, base + page * 4096, SHM_REMAP);
		expect("EINVAL with SHM_REMAP too", got == (void *)-1 && errno == EINVAL);
	}
	got = shmat(id, base, 0);
	expect("shmat at a multiple of SHMLBA", got == base);
	/* The way around: attach anywhere, then move. */
	memset(got, 0x5a, 4096);
	got = mremap(got, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, base + LBA + 4096);
	expect("moved off SHMLBA", got == base + LBA + 4096 && got[4095] == 0x5a);
	expect("still one attachment", shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_nattch == 1);
	expect("detached there", got != MAP_FAILED && shmdt(got) == 0);
	expect("none is left", shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_nattch == 0);
	shmctl(id, IPC_RMID, NULL);
	return failures != 0;
}
