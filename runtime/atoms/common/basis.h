/* basis.h - fixed orthonormal bases (basis.c): a transform is all that an atom set of one has to write. Private. */
#ifndef ATOMO_BASIS_H
#define ATOMO_BASIS_H

#include "atoms/common/coefficients.h"

/* An atom set that has `transform` takes these; its state starts with the spectrum, its options with step. */
int atomo__basis_plan(atomo__plan *plan, size_t state_size); /* state_size: of its own, beyond the spectrum */
void *atomo__basis_state(const atomo__plan *plan);
int atomo__basis_measure(atomo__plan *plan, const float *g, atomo__context *c);
int atomo__basis_refine(atomo__plan *plan, const float *g);
void atomo__basis_price(atomo__plan *plan, double T);
int atomo__basis_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
int atomo__basis_decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);
void atomo__basis_settle(atomo__context *c, float *acc); /* transforms what is pending, and adds it to acc */
#define ATOMO__BASIS_STAGES                                                                                            \
    .measure = atomo__basis_measure, .refine = atomo__basis_refine, .guess = atomo__entries_guess,                     \
    .price = atomo__basis_price, .encode = atomo__basis_encode, .decode_add = atomo__basis_decode_add,                 \
    .settle = atomo__basis_settle
/* A transform for lengths that are powers of two, run by run of the binary digits of n, the longest first. */
typedef void atomo__run_fn(float *x, int64_t size, bool inverse);
void atomo__basis_runs(const atomo__plan *plan, float *x, bool inverse, atomo__run_fn *run);

#endif
