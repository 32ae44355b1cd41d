/* What runs as the service of these hosts: it says what it hears, and ends on TERM. */
#include <signal.h>
#include <stdio.h>

int main(void) {
    sigset_t signals;
    int signal;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    puts("ready");
    fflush(stdout);
    while (sigwait(&signals, &signal) == 0 && signal != SIGTERM) {
        puts("hup");
        fflush(stdout);
    }
    return 0;
}
