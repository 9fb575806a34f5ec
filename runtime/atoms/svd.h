/* svd.h - functions of spectral atoms that `auto` calls (svd/measure.c). Private. */
#ifndef ATOMO_SVD_H
#define ATOMO_SVD_H

#include "codec/codec.h"

/* Bits of a body without its atoms: the number of atoms, the exponent, the padding of the last byte. */
enum { ATOMO__SVD_FIXED_BITS = 24 };

/* For spectral plans whose atoms each have their own number of bits (option bits = 0).
 * search: measures all atoms exactly, for every number of bits. */
int atomo__svd_search(atomo__plan *plan, const float *g, atomo__context *c);
/* Chooses the bits of each atom for T, by the results of a search on this gradient; no effect without one. */
void atomo__svd_choose(atomo__plan *plan, double T);
/* Returns the fraction of the energy, 0 to 1, in atoms whose magnitude has changed more than twofold since the search
 * that chose their bits. */
double atomo__svd_strange(const atomo__plan *plan);

#endif
