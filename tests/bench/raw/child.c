/* The child of the benchmarks: says "name pid nanoseconds" into a FIFO as its first act, then
 * sleeps, exits with 1, or writes that many bytes in lines of 100. usage: child FIFO NAME sleep|exit|BYTES */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void ring(const char *fifo, const char *name) {
    struct timespec now;
    char line[256];
    int fd = open(fifo, O_WRONLY);
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%s %d %lld\n", name, getpid(), now.tv_sec * 1000000000LL + now.tv_nsec);
    if (write(fd, line, length) != length) _exit(2);
    close(fd);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    ring(argv[1], argv[2]);
    if (!strcmp(argv[3], "exit")) return 1;
    if (!strcmp(argv[3], "sleep")) for (;;) pause();
    static char lines[64000];
    for (int at = 0; at < 64000; at++) lines[at] = at % 100 == 99 ? '\n' : 'x';
    for (long long left = atoll(argv[3]); left > 0;) {
        ssize_t count = write(1, lines, left < 64000 ? left : 64000);
        if (count <= 0) return 2;
        left -= count;
    }
    ring(argv[1], argv[2]);
    for (;;) pause();
}
