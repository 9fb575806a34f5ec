/* test_child.c - a signal to this process, whenever it comes, ends the child process that a script waits for. */
#include "check.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int code_of(void)
{
    int code = -1, over = 0;
    while ((over = atomo_child_poll(&code)) == 0) usleep(1000);
    CHECK(over == 1);
    return code;
}

static void codes(void)
{
    CHECK(atomo_child_start("exit 7") == ATOMO_OK);
    CHECK(atomo_child_start("exit 8") == ATOMO_EARG); /* one at a time */
    CHECK(code_of() == 7);
    int code;
    CHECK(atomo_child_poll(&code) == ATOMO_EARG); /* there is no child to wait for */
    CHECK(atomo_child_start("kill -9 $$") == ATOMO_OK);
    CHECK(code_of() == 128 + SIGKILL);
    CHECK(atomo_child_start("exec sleep 1000") == ATOMO_OK);
    atomo_child_kill(SIGKILL);
    CHECK(code_of() == 128 + SIGKILL);
}

/* The signal comes while the child starts, before its process number is known. */
static void told_before(void)
{
    atomo_child_terminate();
    CHECK(atomo_child_start("exec sleep 1000") == ATOMO_OK);
    CHECK(code_of() == 128 + SIGTERM);
    atomo_child_forgive();
    CHECK(atomo_child_start("exit 3") == ATOMO_OK);
    CHECK(code_of() == 3);
}

static void told_after(void)
{
    CHECK(atomo_child_start("exec sleep 1000") == ATOMO_OK);
    atomo_child_terminate();
    CHECK(code_of() == 128 + SIGTERM);
    atomo_child_terminate(); /* it has been reaped: its number may belong to another process */
    atomo_child_kill(SIGKILL);
    atomo_child_forgive();
}

static void on_terminate(int sig)
{
    (void)sig;
    atomo_child_terminate();
}

/* The child itself sends the signal as its first action, and a signal handler forwards it; a hundred times. */
static void at_once(void)
{
    struct sigaction a = {.sa_handler = on_terminate}, before;
    CHECK(sigaction(SIGTERM, &a, &before) == 0);
    for (int i = 0; i < 100; i++) {
        CHECK(atomo_child_start("kill -TERM $PPID; exec sleep 1000") == ATOMO_OK);
        CHECK(code_of() == 128 + SIGTERM);
        atomo_child_forgive();
    }
    sigaction(SIGTERM, &before, NULL);
}

int main(void)
{
    RUN(codes);
    RUN(told_before);
    RUN(told_after);
    RUN(at_once);
    return check_done();
}
