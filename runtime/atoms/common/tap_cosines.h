/* tap_cosines.h - cosines over the taps of convolution kernels (tap_cosines.c). Private. */
#ifndef ATOMO_TAP_COSINES_H
#define ATOMO_TAP_COSINES_H

#include "core/core.h"

enum { ATOMO__MAX_TAPS = 64 }; /* of an axis; a longer one is left as it is */
typedef struct atomo__tap_axis {
    int64_t blocks, taps, inner; /* the tensor as [blocks, taps, inner]; taps 1: nothing to do */
    float *forward, *backward;   /* [taps, taps] */
} atomo__tap_axis;
typedef struct atomo__tap_cosines {
    atomo__tap_axis row, column; /* over kw, over kh */
} atomo__tap_cosines;
/* The struct must be zeroed. A tensor that is no kernel (not four-dimensional) is not transformed. The caller frees the
 * struct, also after a failure. */
int atomo__tap_cosines_make(atomo__tap_cosines *k, int ndim, const double *shape);
void atomo__tap_cosines_free(atomo__tap_cosines *k);
/* x [n] in place, orthonormal; work [n]. channel: one output channel of a kernel, x [size]. */
void atomo__tap_cosines_channel(const atomo__tap_cosines *k, int64_t size, float *x, bool inverse, float *work);
void atomo__tap_cosines_run(const atomo__tap_cosines *k, int64_t n, float *x, bool inverse, float *work);

#endif
