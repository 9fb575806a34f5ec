/* watchdog.h - a stall, as watchdog.c finds it, whom.c asks about it, diagnosis.c describes it and ending.c ends the
 * job for it. Private to runtime/watchdog. */
#ifndef ATOMO_WATCHDOG_H
#define ATOMO_WATCHDOG_H

#include "watchdog/query.h"

/* A stall as this rank sees it. */
typedef struct atomo_stall {
    const atomo_flight_op *op; /* the operation that makes no progress */
    double waited;             /* seconds without progress */
    const atomo_peer *peers;   /* [n] the ranks that take part, this one included, with their answers */
    int n, own;                /* number of peers; index of this rank among them */
} atomo_stall;

/* Writes several lines of text: which operation waits, for which ranks, and what these do. */
void atomo__stall_text(const atomo_stall *s, char *out, size_t size);
/* Returns whether a lower rank waits, too, in the same operation or for at least `least` seconds. Then that rank prints
 * the warning and ends the job. */
bool atomo__stall_spoken_for(const atomo_stall *s, double least);

/* ---- whom to ask (whom.c) ---- */
enum { ATOMO__FEW = 16 }; /* ranks that are asked at first */
/* asked [n] = the members that rank `own`, which is no member itself, asks: the `reach` members after it, cyclically,
 * and if `lowest` the ATOMO__FEW lowest ones. Returns whether these are all members. */
bool atomo__whom_to_ask(const bool *member, int n, int own, int reach, bool lowest, bool *asked);
/* Of the ranks after this one, cyclically: has the first one that waits or has left left? Then it is for this rank to
 * end the job. */
bool atomo__next_has_left(const atomo_stall *s);
/* Returns whether a rank that was asked waits, too. It asks the ranks after it. */
bool atomo__another_waits(const atomo_stall *s);

/* ---- printing, and ending the job (ending.c) ---- */
enum { ATOMO__STALL_TEXT = 4096 };          /* bytes of a stall's text */
enum { ATOMO__EXIT_STALLED = 75 };          /* EX_TEMPFAIL: the job may be run again */
void atomo__watchdog_say(const char *text); /* on stderr */
/* Aborts the job. Open MPI's abort may hang like the operation; then SIGALRM kills the process, which ends the job,
 * too.
 */
void atomo__end_job(int code);
/* Prints the last word and aborts the job. what: the stall's text. stalled: an operation made no progress; prefix: of
 * the flight recorder's files. left: a rank that this one waits for has ended its script. */
void atomo__end_stalled(const char *what, const char *prefix);
void atomo__end_left(const char *what);

#endif
