/* watchdog.h - what watchdog.c knows and diagnosis.c puts into words. Private to runtime/watchdog. */
#ifndef ATOMO_WATCHDOG_H
#define ATOMO_WATCHDOG_H

#include "watchdog/query.h"

/* A stall as this rank sees it. */
typedef struct atomo_stall {
    const atomo_flight_op *op; /* that does not go on */
    double waited;             /* seconds without progress */
    const atomo_peer *peers;   /* with their answers */
    int n, own;                /* number of peers; this rank's place among them */
} atomo_stall;

/* Writes a text of several lines for people: what waits, for whom, and what the others do. */
void atomo__stall_text(const atomo_stall *s, char *out, size_t size);
/* Whether a rank before this one waits too, in the same operation or for `least` seconds: it speaks for all. */
bool atomo__stall_spoken_for(const atomo_stall *s, double least);

#endif
