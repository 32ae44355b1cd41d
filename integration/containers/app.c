/* What the containers of these tests run: small, static, and each word one behaviour.
 *
 * It says `ready` on standard output when it is in the state that a test waits for. It handles no signal unless told to, as
 * most programs do; whoever is PID 1 then ignores what has no handler (pid_namespaces(7)). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void say(const char *text) {
    if (write(1, text, strlen(text)) < 0) _exit(99);
}

static void wait_for_ever(void) {
    say("ready\n");
    for (;;) pause();
}

/* The environment, one variable on a line, and its own process id. */
static int show(void) {
    char line[64];
    for (char **entry = environ; *entry; entry++) {
        say(*entry);
        say("\n");
    }
    snprintf(line, sizeof line, "pid %d\n", (int)getpid());
    say(line);
    return 0;
}

static int cat(const char *path) {
    char part[4096];
    ssize_t count;
    int file = open(path, O_RDONLY);
    if (file < 0) return 1;
    while ((count = read(file, part, sizeof part)) > 0)
        if (write(1, part, (size_t)count) != count) return 1;
    return count == 0 ? 0 : 1;
}

/* Takes any signal that can be taken, says which one, and ends with a status of its own. */
static int handle(void) {
    sigset_t all;
    siginfo_t info;
    char line[32];
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    say("ready\n");
    if (sigwaitinfo(&all, &info) < 0) return 98;
    snprintf(line, sizeof line, "signal %d\n", info.si_signo);
    say(line);
    return 7;
}

/* Three grandchildren whose parent ends before they do: they fall to PID 1, which has never heard of them. `ready` when all
 * of them have ended; nobody here waits for them. */
static void leave_orphans(void) {
    int go[2], gone[2];
    char byte;
    pid_t child;
    if (pipe(go) || pipe(gone)) _exit(97);
    child = fork();
    if (child == 0) {
        for (int i = 0; i < 3; i++)
            if (fork() == 0) {
                close(go[1]);
                _exit(read(go[0], &byte, 1) < 0);
            }
        _exit(0);
    }
    waitpid(child, NULL, 0);
    close(go[1]);
    close(gone[1]);
    if (read(gone[0], &byte, 1) != 0) _exit(96);
    wait_for_ever();
}

int main(int count, char **words) {
    const char *word = count > 1 ? words[1] : "wait";
    const char *value = count > 2 ? words[2] : "";
    if (!strcmp(word, "wait")) wait_for_ever();
    if (!strcmp(word, "show")) return show();
    if (!strcmp(word, "show-and-wait")) {
        show();
        wait_for_ever();
    }
    if (!strcmp(word, "cat")) return cat(value);
    if (!strcmp(word, "handle")) return handle();
    if (!strcmp(word, "orphans")) leave_orphans();
    if (!strcmp(word, "exit")) return atoi(value);
    if (!strcmp(word, "die")) return kill(getpid(), atoi(value));
    if (!strcmp(word, "crash")) *(volatile int *)0 = 0;
    return 95;
}
