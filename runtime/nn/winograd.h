/* winograd.h - the transforms of Winograd's convolution, for tiles of m x m outputs (m is 2 or 4). Private to
 * runtime/nn.
 *
 * A tile has e = m + 2 points a side. Element k = row e + column of the transformed tile lies at k * step floats.
 * Channels are the innermost dimension and a multiple of WINO_LANES; rows are pointers to the c channels of a pixel.
 */
#ifndef ATOMO_WINOGRAD_H
#define ATOMO_WINOGRAD_H

#include <stdbool.h>
#include <stdint.h>

enum { WINO_LANES = 16, WINO_SIDE = 6, WINO_POINTS = 36 };

void atomo__wino_input(int m, int64_t c, const float *const *rows, float *v, int64_t step); /* B^T d B */
void atomo__wino_output(int m, int64_t c, const float *v, int64_t step, const float *bias, bool add,
                        float *const *rows); /* A^T v A + bias, plus what the rows hold with `add` */
void atomo__wino_gradient(int m, int64_t c, const float *const *rows, float *v, int64_t step); /* A d A^T */
void atomo__wino_weight(int m, bool flip, int64_t c, const float *w, int64_t apart, float *v,
                        int64_t step); /* G w G^T; apart: from one tap to the next */
void atomo__wino_weight_gradient(int m, int64_t c, const float *v, int64_t step, float *gw); /* G^T v G */

/* c [m,n] = op(a) b, added to what is there with `add`; op(a) [m,k], ta: a is stored [k,m]; n a multiple of WINO_LANES.
 * Only where it runs: on a CPU with AVX-512. */
bool atomo__small_gemm_runs(void);
void atomo__small_gemm(bool ta, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                       int64_t ldb, bool add, float *c, int64_t ldc);

#endif
