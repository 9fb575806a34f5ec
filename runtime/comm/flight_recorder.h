/* flight_recorder.h - the flight recorder, which the watchdog reads. Private. */
#ifndef ATOMO_FLIGHT_RECORDER_H
#define ATOMO_FLIGHT_RECORDER_H

#include "core/core.h"

enum { ATOMO_FLIGHT_NOTE = 48 };

/* The ranks that take part in an operation. */
typedef struct atomo_flight_group {
    const int32_t *ranks; /* [size] in MPI_COMM_WORLD */
    int size;
    uint32_t number; /* collectives of this group so far */
    bool message;    /* operations are messages or requests, which are not counted in number */
} atomo_flight_group;

/* One operation of this process. */
typedef struct atomo_flight_op {
    uint64_t sequence;               /* number among this process's operations, from 1 */
    const char *operation;           /* static text: "allreduce" */
    uint32_t number;                 /* number among the collectives on its communicator, from 1; 0: no collective */
    bool patient;                    /* a long wait is normal: the end of the program */
    bool asks;                       /* it asks the ranks that it waits for whether they have ended (ended.c) */
    char note[ATOMO_FLIGHT_NOTE];    /* its purpose: "bucket 2 of 5" */
    const atomo_flight_group *group; /* while it runs; NULL: only this rank takes part, or it has ended */
    double bytes, begin, end;        /* bytes of this rank; times by atomo_time in seconds; end 0: it still runs */
} atomo_flight_op;

/* Records the beginning of an operation and returns a token; atomo__flight_end(&token) records its end. An operation
 * inside another one is not recorded (token 0). The group may be NULL and must live until the end. The calling thread's
 * note becomes the operation's note. */
uint64_t atomo__flight_begin(const char *operation, atomo_flight_group *group, double bytes);
void atomo__flight_end(const uint64_t *token);
/* Sets the purpose of the operation that begin returned this token for; instead: replaces the caller's, too. */
void atomo__flight_detail(uint64_t token, const char *text, bool instead);
void atomo__flight_patient(void);        /* marks the newest operation as one that may wait for long */
void atomo__flight_asks(void);           /* marks it as one that asks */
void atomo__flight_progress(void);       /* records that a part of the current operation is done */
void atomo__flight_pop_note(char *out);  /* moves the calling thread's note to out [ATOMO_FLIGHT_NOTE] */
const char *atomo__flight_purpose(void); /* note of the calling thread's current operation, or of its next one */
/* *out = the newest operation, *progress = finished parts so far; false if there was no operation yet. */
bool atomo__flight_last(atomo_flight_op *out, uint64_t *progress);
/* member[r] = whether rank r < n takes part in the operation with this number; false if it does not run any more. */
bool atomo__flight_members(uint64_t sequence, bool *member, int n);

/* Records the code from here to the end of the block as one operation. */
#define ATOMO_FLIGHT(operation, group, bytes)                                                                          \
    __attribute__((cleanup(atomo__flight_end))) const uint64_t flight_ = atomo__flight_begin(operation, group, bytes)

#endif
