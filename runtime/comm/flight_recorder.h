/* flight_recorder.h - the flight recorder and what the watchdog reads of it. Private. */
#ifndef ATOMO_FLIGHT_RECORDER_H
#define ATOMO_FLIGHT_RECORDER_H

#include "core/core.h"

enum { ATOMO_FLIGHT_NOTE = 48 };

/* Who takes part in an operation: ranks of MPI_COMM_WORLD, and the count of its collectives. */
typedef struct atomo_flight_group {
    const int32_t *ranks;
    int size;
    uint32_t number;
    bool message; /* not a collective: it is not counted */
} atomo_flight_group;

/* One operation of this process. */
typedef struct atomo_flight_op {
    uint64_t sequence;            /* of this process's operations, from 1 */
    const char *operation;        /* static text: "allreduce" */
    uint32_t number;              /* of the collectives on its communicator, from 1; 0: a message, not a collective */
    bool patient;                 /* may wait for long: the end of the program */
    char note[ATOMO_FLIGHT_NOTE]; /* what it is for: "bucket 2 of 5" */
    const atomo_flight_group *group; /* while it is under way; NULL: this rank alone */
    double bytes, begin, end;        /* of this rank; seconds of atomo_time; end 0: under way */
} atomo_flight_op;

/* Begins an operation; atomo__flight_end(&token) ends it. One inside another is not recorded (token 0). The group,
 * which may be NULL, must live until the end. Takes this thread's note. */
uint64_t atomo__flight_begin(const char *operation, atomo_flight_group *group, double bytes);
void atomo__flight_end(const uint64_t *token);
void atomo__flight_patient(void);        /* the operation under way may wait for long */
void atomo__flight_progress(void);       /* a part of the operation under way is through */
void atomo__flight_pop_note(char *out);  /* [ATOMO_FLIGHT_NOTE]; this thread has none afterwards */
const char *atomo__flight_purpose(void); /* of the operation under way on this thread, or its next */
bool atomo__flight_last(atomo_flight_op *out, uint64_t *progress); /* false before the first */
/* Sets member[r] for the ranks r < n that take part in that operation; false where it is not under way any more. */
bool atomo__flight_members(uint64_t sequence, bool *member, int n);

/* Records the rest of the block as one operation. */
#define ATOMO_FLIGHT(operation, group, bytes)                                                                          \
    __attribute__((cleanup(atomo__flight_end))) const uint64_t flight_ = atomo__flight_begin(operation, group, bytes)

#endif
