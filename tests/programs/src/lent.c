/* A parent and a child with four descriptors whose other ends are outside of the checkpoint: a terminal, a unix socket, a
 * pipe, a file on loan. `lent lend COMMAND` is outside: it makes these as descriptors 10 to 13, writes their names into
 * `ids` (as criu takes them), runs the command, answers on the socket and the terminal, and writes into `arrived` what came. */
#include "check.h"
#include <poll.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
enum { TTY = 10, SOCKET, PIPE, FILE_FD };
static void line(int fd, char *to, int n) { int i = 0; while (i < n - 1 && read(fd, to + i, 1) == 1 && to[i] != '\n') i++; to[i] = 0; }
static void uses(const char *who) {
    char b[64], want[64]; int n = strlen(who);
    CHECK(write(TTY, who, n) == n && write(TTY, "\n", 1) == 1, "terminal: %s", strerror(errno)); line(TTY, b, sizeof b);
    snprintf(want, sizeof want, "typed for %s", who); CHECK(!strcmp(b, want), "terminal: %s", b);
    CHECK(write(SOCKET, who, n) == n && write(SOCKET, "\n", 1) == 1, "socket: %s", strerror(errno)); line(SOCKET, b, sizeof b);
    snprintf(want, sizeof want, "said to %s", who); CHECK(!strcmp(b, want), "socket: %s", b);
    CHECK(write(PIPE, who, n) == n && write(PIPE, "\n", 1) == 1, "pipe: %s", strerror(errno));
    CHECK(write(FILE_FD, who, n) == n && write(FILE_FD, "\n", 1) == 1, "file: %s", strerror(errno));
}
static void name(FILE *to, const char *kind, int fd) {
    struct stat s; fstat(fd, &s); char path[64], l[64]; int mount = -1; snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *f = fopen(path, "r"); while (fgets(l, sizeof l, f)) sscanf(l, "mnt_id: %d", &mount);
    fclose(f);
    if (*kind == 't') fprintf(to, "tty[%llx:%llx]\n", (long long)s.st_rdev, (long long)s.st_dev);
    else if (*kind == 'f') fprintf(to, "file[%x:%llx]\n", mount, (long long)s.st_ino);
    else fprintf(to, "%s[%llu]\n", kind, (long long)s.st_ino);
}
static int lend(char **command) {
    int master, slave, s[2], p[2], file = open("on-loan", O_RDWR | O_CREAT | O_TRUNC, 0644); struct termios t;
    if (openpty(&master, &slave, 0, 0, 0) || socketpair(AF_UNIX, SOCK_STREAM, 0, s) || pipe(p) || file < 0) return 2;
    tcgetattr(slave, &t); t.c_lflag &= ~ECHO; t.c_oflag &= ~OPOST; tcsetattr(slave, TCSANOW, &t);
    pid_t child = fork();
    if (!child) {
        int from[] = {slave, s[1], p[1], file}, safe[4]; for (int i = 0; i < 4; i++) safe[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 30);
        for (int fd = 3; fd < 30; fd++) close(fd);
        for (int i = 0; i < 4; i++) dup2(safe[i], TTY + i);
        FILE *ids = fopen("ids", "w"); name(ids, "tty", TTY); name(ids, "unix", SOCKET); name(ids, "pipe", PIPE); name(ids, "file", FILE_FD); fclose(ids);
        execvp(command[0], command); _exit(127);
    }
    close(s[1]); close(p[1]); close(file); FILE *arrived = fopen("arrived", "w"); setlinebuf(arrived);
    /* The slave stays open: a master without one says that it is at its end. */
    struct pollfd all[] = {{master, POLLIN, 0}, {s[0], POLLIN, 0}, {p[0], POLLIN, 0}}; char b[64], answer[96];
    while (all[2].fd >= 0 && poll(all, 3, -1) > 0)
        for (int i = 0; i < 3; i++) {
            if (!all[i].revents) continue;
            line(all[i].fd, b, sizeof b); if (!*b) { all[i].fd = -1; continue; }
            fprintf(arrived, "%s %s\n", (char *[]){"terminal", "socket", "pipe"}[i], b); int n = snprintf(answer, sizeof answer, "%s %s\n", i ? "said to" : "typed for", b);
            if (i < 2 && write(all[i].fd, answer, n) != n) return 3;
        }
    return 0;
}
int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "lend")) return lend(argv + 2);
    volatile int *go = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uses("first"); pid_t child = fork(); if (!child) { while (!*go) tick(); uses("child"); _exit(failures); }
    start(); while (!stop) tick();
    int st; uses("parent"); *go = 1; CHECK(waitpid(child, &st, 0) == child && !st, "the child: %x", st);
    char b[64] = ""; CHECK(lseek(FILE_FD, 0, SEEK_CUR) == 19, "position %ld", (long)lseek(FILE_FD, 0, SEEK_CUR));
    CHECK(pread(FILE_FD, b, 60, 0) == 19 && !strcmp(b, "first\nparent\nchild\n"), "the file: %s", b);
    return verdict();
}
