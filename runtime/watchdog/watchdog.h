/* watchdog.h - a stall, as watchdog.c finds it and diagnosis.c describes it. Private to runtime/watchdog. */
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

#endif
