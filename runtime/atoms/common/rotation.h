/* rotation.h - random orthonormal maps of a line (rotation.c). Private. */
#ifndef ATOMO_ROTATION_H
#define ATOMO_ROTATION_H

#include "core/core.h"

/* Entries that `n` are rotated as, the others being zero: n rounded up to five significant binary digits, 6 % more at
 * most, and no more where n has no more digits. */
int64_t atomo__rotation_size(int64_t n);
/* Blocks of the stream that a rotation of `size` entries uses. */
uint32_t atomo__rotation_blocks(int64_t size);
/* x [size] <- by R x, and <- by R^T x; R of the stream's blocks from `first` on. size is a rotation_size;
 * work: room for as many. */
void atomo__rotate(float *x, int64_t size, const atomo_stream *s, uint32_t first, double by, float *work);
void atomo__rotate_back(float *x, int64_t size, const atomo_stream *s, uint32_t first, double by, float *work);

#endif
