/* ending.c - prints the watchdog's texts and ends the job. No other file of the library prints or ends the process.
 * This one must, because the thread in the hanging operation cannot. Path: stage 7.
 */
#define _GNU_SOURCE
#include "watchdog/watchdog.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_LEFT = 1 };

void atomo__watchdog_say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) return; /* a failure cannot be reported anywhere */
}

void atomo__end_job(int code)
{
    signal(SIGALRM, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    alarm(10);
    nanosleep(&(struct timespec){0, 500000000}, NULL); /* others write their recorders, and mpirun reads the text */
    atomo_await_readers(5);
    atomo_mpi_abort(code);
    _exit(code);
}

void atomo__end_stalled(const char *what, const char *prefix)
{
    char text[2 * ATOMO__STALL_TEXT], step[48] = "";
    if (atomo_noted_step() >= 0) snprintf(step, sizeof step, ", step %.0f", atomo_noted_step());
    snprintf(text, sizeof text,
             "\n---- %s%s: stopped by the watchdog ---------------------------------------\n%s"
             "What to do: look after the ranks named above; the last operations of every rank that answers are in "
             "%s-rank*.jsonl.\nRun again, with --resume where a checkpoint was saved; --stall-abort 0 waits for ever.\n"
             "------------------------------------------------------------------------------------------\n",
             atomo_mpi_label(), step, what, prefix);
    atomo__watchdog_say(text);
    atomo__end_job(ATOMO__EXIT_STALLED);
}

void atomo__end_left(const char *what)
{
    char text[2 * ATOMO__STALL_TEXT];
    snprintf(text, sizeof text,
             "\n---- %s: a rank has left the program ---------------------------------------\n%s"
             "What to do: every rank must take part in a collective, and a message needs its sender and its receiver.\n"
             "No rank may end early, or skip a part of the script that other ranks run.\n"
             "------------------------------------------------------------------------------------------\n",
             atomo_mpi_label(), what);
    atomo__watchdog_say(text);
    atomo__end_job(EXIT_LEFT);
}
