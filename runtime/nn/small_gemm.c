/* small_gemm.c - C [m,n] = A B (+ C) for the small products of Winograd's convolution; AVX-512 only. Path: stage 3.
 *
 * A general sgemm packs its operands and chooses a kernel in each call, which for 16 to 128 channels takes as long as
 * the product. This one packs nothing. It keeps a tile of C in registers (16 rows of 16 columns, or 8 of 32), reads B's
 * rows in place, and broadcasts A's elements one at a time, so A may have any strides and may be transposed. Every
 * element is summed in a fixed order, so the bits depend on the shapes only.
 */
#include "core/core.h"
#include "nn/winograd.h"

#ifdef ATOMO_X86
#include <immintrin.h>

typedef struct product {
    int64_t m, k, row, step; /* A's element (r, i) is at a[r * row + i * step] */
    int64_t ldb, ldc;
    bool add;
} product;

#define KERNEL static inline __attribute__((always_inline, target("avx512f")))

/* Computes a tile of `rows` rows and 16 * columns columns of C. rows, columns and, for the usual strides, row are
 * constants after inlining. */
KERNEL void tile(int rows, int columns, int64_t row, const product *p, const float *a, const float *b, float *c)
{
    __m512 sum[16][2];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < columns; j++)
            sum[r][j] = p->add ? _mm512_loadu_ps(c + r * p->ldc + j * WINO_LANES) : _mm512_setzero_ps();
    for (int64_t i = 0; i < p->k; i++, a += p->step, b += p->ldb) {
        __m512 v[2];
        for (int j = 0; j < columns; j++) v[j] = _mm512_loadu_ps(b + j * WINO_LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const __m512 f = _mm512_set1_ps(a[r * row]);
#pragma GCC unroll 2
            for (int j = 0; j < columns; j++) sum[r][j] = _mm512_fmadd_ps(f, v[j], sum[r][j]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < columns; j++) _mm512_storeu_ps(c + r * p->ldc + j * WINO_LANES, sum[r][j]);
}

/* Computes all rows of a strip of 16 * columns columns. */
KERNEL void strip(int columns, int64_t row, const product *p, const float *a, const float *b, float *c)
{
    const int most = columns == 1 ? 16 : 8;
    int64_t r = 0;
    for (; r + most <= p->m; r += most) tile(most, columns, row, p, a + r * row, b, c + r * p->ldc);
    for (; r < p->m; r++) tile(1, columns, row, p, a + r * row, b, c + r * p->ldc);
}

/* The usual strides of A are compiled in as constants, since the addresses of 16 rows do not fit into registers. */
#define STRIP(name, columns)                                                                                           \
    __attribute__((target("avx512f"))) static void name(const product *p, const float *a, const float *b, float *c)    \
    {                                                                                                                  \
        switch (p->row) {                                                                                              \
        case 1:                                                                                                        \
            strip(columns, 1, p, a, b, c);                                                                             \
            break;                                                                                                     \
        case 16:                                                                                                       \
            strip(columns, 16, p, a, b, c);                                                                            \
            break;                                                                                                     \
        case 32:                                                                                                       \
            strip(columns, 32, p, a, b, c);                                                                            \
            break;                                                                                                     \
        case 64:                                                                                                       \
            strip(columns, 64, p, a, b, c);                                                                            \
            break;                                                                                                     \
        case 128:                                                                                                      \
            strip(columns, 128, p, a, b, c);                                                                           \
            break;                                                                                                     \
        default:                                                                                                       \
            strip(columns, p->row, p, a, b, c);                                                                        \
        }                                                                                                              \
    }
STRIP(strip16, 1)
STRIP(strip32, 2)

bool atomo__small_gemm_runs(void)
{
    return __builtin_cpu_supports("avx512f") != 0;
}

void atomo__small_gemm(bool ta, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                       int64_t ldb, bool add, float *c, int64_t ldc)
{
    const product p = {.m = m, .k = k, .row = ta ? 1 : lda, .step = ta ? lda : 1, .ldb = ldb, .ldc = ldc, .add = add};
    int64_t j = 0;
    for (; j + 2 * WINO_LANES <= n; j += 2 * WINO_LANES) strip32(&p, a, b + j, c + j);
    if (j < n) strip16(&p, a, b + j, c + j);
}

#else

bool atomo__small_gemm_runs(void)
{
    return false;
}

void atomo__small_gemm(bool ta, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                       int64_t ldb, bool add, float *c, int64_t ldc)
{
    (void)ta, (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)add, (void)c, (void)ldc;
}

#endif
