/* winograd.h - the transforms of Winograd's convolution, for tiles of m x m outputs (m is 2 or 4). Private to
 * runtime/nn.
 *
 * A transformed tile has e x e points, e = m + 2. Point k = row * e + column is at v + k * step floats and has c
 * channels, a multiple of WINO_LANES. rows[k] points to the c channels of pixel k of the tile.
 */
#ifndef ATOMO_WINOGRAD_H
#define ATOMO_WINOGRAD_H

#include <stdbool.h>
#include <stdint.h>

enum { WINO_LANES = 16, WINO_SIDE = 6, WINO_POINTS = 36 };

void atomo__wino_input(int m, int64_t c, const float *const *rows, float *v, int64_t step); /* B^T d B */
void atomo__wino_output(int m, int64_t c, const float *v, int64_t step, const float *bias, bool add,
                        float *const *rows); /* rows = A^T v A + bias, or with `add` rows += it; bias may be NULL */
void atomo__wino_gradient(int m, int64_t c, const float *const *rows, float *v, int64_t step); /* A d A^T */
/* G w G^T; apart: floats from one tap to the next; flip: w rotated by 180 degrees. */
void atomo__wino_weight(int m, bool flip, int64_t c, const float *w, int64_t apart, float *v, int64_t step);
void atomo__wino_weight_gradient(int m, int64_t c, const float *v, int64_t step, float *gw); /* G^T v G */

/* c [m,n] = op(a) b, or with `add` c += op(a) b; op(a) is [m,k], with ta stored as [k,m]; n is a multiple of
 * WINO_LANES. It may be called only if atomo__small_gemm_runs, that is, if the CPU has AVX-512. */
bool atomo__small_gemm_runs(void);
void atomo__small_gemm(bool ta, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                       int64_t ldb, bool add, float *c, int64_t ldc);

#endif
