/* pool_tiling.h - the kernels of 2x2 maximum pooling with stride 2: one row of n outputs. Private to runtime/nn.
 *
 * x and gx: the first of two rows of the image, `row` floats apart, 2 n pixels of c channels; y and gy: n pixels.
 * Of equal values the first is the maximum, in the order of reading; a NaN is larger than any number.
 */
#ifndef ATOMO_POOL_TILING_H
#define ATOMO_POOL_TILING_H

#include <stdint.h>

void atomo__pool_tiling_row(int64_t n, int64_t c, int64_t row, const float *x, float *y);
void atomo__pool_tiling_backward_row(int64_t n, int64_t c, int64_t row, const float *x, const float *gy,
                                     float *gx); /* all four pixels of a window are written */

#endif
