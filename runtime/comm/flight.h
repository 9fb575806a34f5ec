/* flight.h - the flight recorder and what the watchdog reads of it. Private to runtime/comm. */
#ifndef ATOMO_FLIGHT_H
#define ATOMO_FLIGHT_H

#include "core/core.h"

enum { ATOMO_FLIGHT_NOTE = 48 };

/* One operation of this process. */
typedef struct atomo_flight_op {
    uint64_t sequence;            /* of this process's operations, from 1 */
    const char *operation;        /* static text: "allreduce" */
    uint32_t number;              /* of the collectives on its communicator, from 1; 0: a message, not a collective */
    bool patient;                 /* may wait for long: the end of the program */
    char note[ATOMO_FLIGHT_NOTE]; /* what it is for: "bucket 2 of 5" */
    double bytes, begin, end;     /* of this rank; seconds of atomo_time; end 0: under way */
} atomo_flight_op;

/* Begins an operation; atomo__flight_end(&token) ends it. One inside another is not recorded (token 0). *number is a
 * communicator's count of collectives, or NULL. Takes this thread's note. */
uint64_t atomo__flight_begin(const char *operation, uint32_t *number, double bytes);
void atomo__flight_end(const uint64_t *token);
void atomo__flight_patient(void);        /* the operation under way may wait for long */
void atomo__flight_progress(void);       /* a part of the operation under way is through */
void atomo__flight_take_note(char *out); /* [ATOMO_FLIGHT_NOTE]; this thread has none afterwards */
const char *atomo__flight_purpose(void); /* of the operation under way on this thread, or its next */
bool atomo__flight_last(atomo_flight_op *out, uint64_t *progress); /* false before the first */

/* Records the rest of the block as one operation. */
#define ATOMO_FLIGHT(operation, number, bytes)                                                                         \
    __attribute__((cleanup(atomo__flight_end))) const uint64_t flight_ = atomo__flight_begin(operation, number, bytes)

#endif
