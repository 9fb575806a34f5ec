/* auto_interval.h - the number of steps between `auto`'s searches (stage 4 of the path). Private.
 *
 * It depends on counted steps and a model of the costs, never on a clock, so a run searches at the same steps on any
 * machine.
 */
#ifndef ATOMO_AUTO_INTERVAL_H
#define ATOMO_AUTO_INTERVAL_H

#include "codec/codec.h"
#include <stdint.h>

typedef struct {
    double entries, side; /* entries of the tensor; short side of its matrix */
    int64_t every;        /* option every: steps between searches; 0: the model decides */
    int64_t since, gap;   /* steps since the last search; steps from it to the next one */
    int64_t soonest;      /* the least steps to the next one if the price has changed */
    int searches;         /* number of searches so far */
    double level;         /* T/||g|| at the last search; 0: not known yet */
} atomo__cadence;

atomo__cadence atomo__cadence_of(int64_t n, int64_t short_side, int64_t every);
/* Returns the modelled nanoseconds of encoding with the atoms of that name, plus those by which decoding is slower than
 * decoding entries. */
double atomo__cadence_cost(const atomo__cadence *c, const char *atoms);
/* Returns 1 if a search is due in this step, and counts it. Called once per step, before measuring. */
int atomo__cadence_due(atomo__cadence *c);
/* Counts a step. Called after encoding with the atoms of that name; level: T/||g||. */
void atomo__cadence_step(atomo__cadence *c, const char *atoms, double level);
/* Visits the state that outlives a step: all that does not follow from the tensor and the options. */
void atomo__cadence_learnt(atomo__cadence *c, atomo__learnt_copy *copy);

#endif
