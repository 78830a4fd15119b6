/* hold FILE: takes an exclusive flock on FILE, says so, and keeps it until it is killed. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
    if (fd < 0 || flock(fd, LOCK_EX)) {
        perror("hold");
        return 1;
    }
    puts("held");
    fflush(stdout);
    for (;;) pause();
}
