#define _FILE_OFFSET_BITS 64
/* poke PID reg N VALUE | vfp N VALUE | tls VALUE: changes a register of a stopped process, which stays stopped.
 * N: 0 to 15 of the core registers, 0 to 31 of the VFP ones (low word). The thread register has no request of its own:
 * the process makes the call itself, by an svc of the sigpage. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GETREGS = 12, SETREGS = 13, GETVFPREGS = 27, SETVFPREGS = 28, SEIZE = 0x4206, INTERRUPT = 0x4207 };
enum { SET_TLS = 0xf0005 };

static pid_t pid;

static void ask(long request, long addr, const void *data)
{
	if (syscall(SYS_ptrace, request, pid, addr, data) < 0) {
		perror("poke: ptrace");
		exit(1);
	}
}

static void stopped(void)
{
	int status;
	if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) {
		fprintf(stderr, "poke: it does not stop\n");
		exit(1);
	}
}

/* The address of an svc in the sigpage: ARM code, and the only one that every process has. */
static unsigned find_svc(void)
{
	char name[64], line[256];
	unsigned start, end, word, at = 0;
	snprintf(name, sizeof name, "/proc/%d/maps", pid);
	FILE *maps = fopen(name, "r");
	snprintf(name, sizeof name, "/proc/%d/mem", pid);
	FILE *mem = fopen(name, "r");
	while (maps && mem && fgets(line, sizeof line, maps)) {
		if (!strstr(line, "[sigpage]") || sscanf(line, "%x-%x r-xp", &start, &end) != 2)
			continue;
		fseeko(mem, start, SEEK_SET);
		for (; start < end && fread(&word, 4, 1, mem) == 1 && !at; start += 4)
			if (word >> 24 == 0xef)
				at = start;
	}
	return at;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	pid = atoi(argv[1]);
	unsigned value = strtoul(argv[argc - 1], 0, 0), n = argc > 4 ? atoi(argv[3]) : 0;
	unsigned regs[18], call[18], vfp[65];
	ask(SEIZE, 0, (void *)1);
	ask(INTERRUPT, 0, 0);
	stopped();
	ask(GETREGS, 0, regs);
	if (!strcmp(argv[2], "reg") && n < 16) {
		regs[n] = value;
	} else if (!strcmp(argv[2], "vfp") && n < 32) {
		ask(GETVFPREGS, 0, vfp);
		vfp[2 * n] = value;
		ask(SETVFPREGS, 0, vfp);
	} else if (!strcmp(argv[2], "tls")) {
		memcpy(call, regs, sizeof call);
		call[0] = value;
		call[7] = SET_TLS;
		call[15] = find_svc();
		call[16] &= ~0x20u;
		if (!call[15])
			return 1;
		ask(SETREGS, 0, call);
		for (int i = 0; i < 2; i++) {
			ask(PTRACE_SYSCALL, 0, 0);
			stopped();
		}
		ask(INTERRUPT, 0, 0);
		ask(PTRACE_CONT, 0, 0);
		stopped();
	} else {
		return 2;
	}
	ask(SETREGS, 0, regs);
	ask(PTRACE_DETACH, 0, 0);
	return 0;
}
