/* pool_tiling.h - the kernels of 2x2 maximum pooling with stride 2, for one row of n outputs. Private to runtime/nn.
 *
 * x and gx point to the first of two rows of the image, which are `row` floats apart and have 2 n pixels of c channels;
 * y and gy have n pixels. Of equal values the first in row-major order is the maximum; NaN is larger than any number.
 */
#ifndef ATOMO_POOL_TILING_H
#define ATOMO_POOL_TILING_H

#include <stdint.h>

void atomo__pool_tiling_row(int64_t n, int64_t c, int64_t row, const float *x, float *y);
void atomo__pool_tiling_backward_row(int64_t n, int64_t c, int64_t row, const float *x, const float *gy,
                                     float *gx); /* all four pixels of a window are written */

#endif
