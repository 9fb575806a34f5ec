/* coefficients.h - coefficients in an orthonormal basis, each kept or dropped by itself (coefficients.c). Private. */
#ifndef ATOMO_COEFFICIENTS_H
#define ATOMO_COEFFICIENTS_H

#include "codec/codec.h"

/* Functions for atom sets with a fixed basis, which compute the coefficients x [n]. The set's state must start with an
 * atomo__spectrum, its scratch memory with index [n]. */
#define ATOMO__STEP_OPTION                                                                                             \
    {                                                                                                                  \
        "step", ATOMO_OPTION_FLOAT, 0.25, 0, 4, NULL,                                                                  \
            "precision of coefficients above tau, in units of tau (stochastically rounded, unbiased); 0: exact f32"    \
    }
enum { ATOMO__ENTRIES_HEADER_BITS = 1 + 32 + 2 * 8 + 14 }; /* form, tau, counts, list headers */
int atomo__entries_plan(atomo__plan *plan);
/* all: makes an exact histogram of all coefficients, because x will not be available to refine (ENONFINITE, without a
 * text); else a histogram of probes, which refine makes exact at plan->T (ENONFINITE, without a text). */
int atomo__entries_measure(atomo__plan *plan, const float *x, bool all);
int atomo__entries_refine(atomo__plan *plan, const float *x);
void atomo__entries_guess(atomo__plan *plan, double bits);
void atomo__entries_price(atomo__plan *plan, double T, double step);
int atomo__entries_encode(atomo__plan *plan, const float *x, double step, uint32_t *index, const atomo__context *c,
                          atomo__writer *w);
int atomo__entries_decode_add(int64_t n, double step, atomo__reader *r, uint32_t *index, float scale, float *acc);

#endif
