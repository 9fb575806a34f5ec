/* auto_interval.h - when `auto` searches a tensor's families again (stage 4 of the path). Private.
 *
 * By counted steps and a model of the costs, never by a clock: the same run searches at the same steps on any machine.
 */
#ifndef ATOMO_AUTO_INTERVAL_H
#define ATOMO_AUTO_INTERVAL_H

#include "codec/codec.h"
#include <stdint.h>

typedef struct {
    double entries, side; /* of the tensor; short side of its matrix */
    int64_t every;        /* given by the user; 0: by the model */
    int64_t since, gap;   /* steps since the last search; to the next one, */
    int64_t soonest;      /* and at least, whatever the price does */
    int searches;
    double level; /* T/||g|| at the last search; 0: not known yet */
} atomo__cadence;

atomo__cadence atomo__cadence_of(int64_t n, int64_t short_side, int64_t every);
/* Nanoseconds of encoding with the atoms of that name, and what decoding takes longer than entries', by the model. */
double atomo__cadence_cost(const atomo__cadence *c, const char *atoms);
/* To be asked once a step, before measuring: counts a search where it says yes. */
int atomo__cadence_due(atomo__cadence *c);
/* In a step that was not due, once it shows that the gradient has changed: counts a search where it says yes. */
int atomo__cadence_early(atomo__cadence *c);
/* After encoding with the atoms of that name, at T/||g||. */
void atomo__cadence_step(atomo__cadence *c, const char *atoms, double level);
/* What outlives a step: all but what the tensor and the options say. */
void atomo__cadence_learnt(atomo__cadence *c, atomo__learnt_copy *copy);

#endif
