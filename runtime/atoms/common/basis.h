/* basis.h - fixed orthonormal bases (basis.c). An atom set with such a basis provides only the transform. Private. */
#ifndef ATOMO_BASIS_H
#define ATOMO_BASIS_H

#include "atoms/common/coefficients.h"

/* The stages of an atom set that has `transform`. Its first option must be step. */
int atomo__basis_plan(atomo__plan *plan, size_t state_size); /* state_size: bytes of state that the set itself needs */
void *atomo__basis_state(const atomo__plan *plan);           /* returns that state */
int atomo__basis_measure(atomo__plan *plan, const float *g, atomo__context *c);
int atomo__basis_refine(atomo__plan *plan, const float *g);
void atomo__basis_price(atomo__plan *plan, double T);
int atomo__basis_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
int atomo__basis_decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);
void atomo__basis_settle(atomo__context *c, float *acc); /* acc += the inverse transform of the pending sum, if any */
#define ATOMO__BASIS_STAGES                                                                                            \
    .measure = atomo__basis_measure, .refine = atomo__basis_refine, .guess = atomo__entries_guess,                     \
    .price = atomo__basis_price, .encode = atomo__basis_encode, .decode_add = atomo__basis_decode_add,                 \
    .settle = atomo__basis_settle
/* Applies a transform for lengths that are powers of two: x [n] is divided into runs by the binary digits of n, the
 * longest first, and `run` transforms each in place. */
typedef void atomo__run_fn(float *x, int64_t size, bool inverse);
void atomo__basis_runs(const atomo__plan *plan, float *x, bool inverse, atomo__run_fn *run);

#endif
