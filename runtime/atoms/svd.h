/* svd.h - what `auto` asks of spectral atoms (svd/measure.c). Private. */
#ifndef ATOMO_SVD_H
#define ATOMO_SVD_H

#include "codec/codec.h"

/* Bits of a body beside its atoms: the count, the exponent, the last byte's padding. */
enum { ATOMO__SVD_FIXED_BITS = 24 };

/* Of a spectral plan whose atoms have bits of their own (bits = 0): measures it, exactly, for all bits; chooses each
 * atom's for T out of what a search of this gradient found; the share of the energy, 0 to 1, in atoms more than twice
 * as large, or less than half as large, as at the last search, for which those bits were not chosen. */
int atomo__svd_search(atomo__plan *plan, const float *g, atomo__context *c);
void atomo__svd_choose(atomo__plan *plan, double T);
double atomo__svd_strange(const atomo__plan *plan);

#endif
