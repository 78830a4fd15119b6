// pty COMMAND…: runs COMMAND in a session of its own on a new terminal, copies what it writes there, ends as it does.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    char name[64], bytes[4096];
    if (argc < 2 || master < 0 || grantpt(master) || unlockpt(master) || ptsname_r(master, name, sizeof name)) {
        perror("pty");
        return 1;
    }
    struct winsize size = { 30, 100, 0, 0 };
    ioctl(master, TIOCSWINSZ, &size);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        int slave = open(name, O_RDWR);
        if (slave < 0 || ioctl(slave, TIOCSCTTY, 0)) _exit(126);
        for (int i = 0; i < 3; i++) dup2(slave, i);
        if (slave > 2) close(slave);
        close(master);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    ssize_t n;
    while ((n = read(master, bytes, sizeof bytes)) > 0)
        if (write(1, bytes, n) != n) return 1;
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
