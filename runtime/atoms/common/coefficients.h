/* coefficients.h - coefficients in an orthonormal basis, kept one by one (coefficients.c). Private. */
#ifndef ATOMO_COEFFICIENTS_H
#define ATOMO_COEFFICIENTS_H

#include "codec/codec.h"

/* An atom set whose basis is fixed makes x [n] and leaves the rest to these. Its state starts with the spectrum, its
 * scratch with index [n]; `all`: x is not there any more when it is encoded, so take all its sizes down now. */
#define ATOMO__STEP_OPTION                                                                                             \
    {                                                                                                                  \
        "step", ATOMO_OPTION_FLOAT, 0.25, 0, 4, NULL,                                                                  \
            "precision of coefficients above tau, in units of tau (stochastically rounded, unbiased); 0: exact f32"    \
    }
enum { ATOMO__ENTRIES_HEADER_BITS = 1 + 32 + 2 * 8 + 14 }; /* form, tau, counts, list headers */
int atomo__entries_plan(atomo__plan *plan);
int atomo__entries_measure(atomo__plan *plan, const float *x, bool all); /* ENONFINITE without a text, where all */
int atomo__entries_refine(atomo__plan *plan, const float *x); /* exact at plan->T; ENONFINITE without a text */
void atomo__entries_guess(atomo__plan *plan, double bits);
void atomo__entries_price(atomo__plan *plan, double T, double step);
int atomo__entries_encode(atomo__plan *plan, const float *x, double step, uint32_t *index, const atomo__context *c,
                          atomo__writer *w);
int atomo__entries_decode_add(int64_t n, double step, atomo__reader *r, uint32_t *index, float scale, float *acc);

#endif
