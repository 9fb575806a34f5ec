/* svd.h - what `auto` uses of spectral atoms (svd.c). Private. */
#ifndef ATOMO_SVD_H
#define ATOMO_SVD_H

#include "codec/codec.h"

/* Bits of a body without its atoms: the number of atoms, the exponent, the padding of the last byte. */
enum { ATOMO__SVD_FIXED_BITS = 24 };

#endif
