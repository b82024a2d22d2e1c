/* The floor: forks, executes and waits, nothing else. usage: loop FILE with one command line a line. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *argv_of[1024][8];
static pid_t pids[1024];
static int count;
static volatile sig_atomic_t ending;

static void start(int index) {
    pid_t pid = vfork();
    if (pid == 0) {
        setsid();
        execv(argv_of[index][0], argv_of[index]);
        _exit(127);
    }
    pids[index] = pid;
}

static void end(int number) {
    (void)number;
    ending = 1;
    for (int index = 0; index < count; index++) kill(pids[index], SIGTERM);
}

int main(int argc, char **argv) {
    char line[4096];
    FILE *file = fopen(argc > 1 ? argv[1] : "", "r");
    if (!file) return 2;
    while (count < 1024 && fgets(line, sizeof line, file)) {
        int word = 0;
        for (char *part = strtok(line, " \n"); part && word < 7; part = strtok(NULL, " \n"))
            argv_of[count][word++] = strdup(part);
        if (word) count++;
    }
    signal(SIGTERM, end);
    for (int index = 0; index < count; index++) start(index);
    for (pid_t pid; (pid = wait(NULL)) > 0 || !ending;)
        for (int index = 0; index < count && !ending; index++)
            if (pids[index] == pid) start(index);
    return 0;
}
