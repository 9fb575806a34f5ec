/* pool_tiling.c - maximum over 2x2 windows with stride 2, the usual pooling. Path: stage 3.
 *
 * One pass over the image compares all four pixels of a window. The AVX-512 version is written by hand, with a mask for
 * channels that do not fill a vector, because the compiler does not vectorise these comparisons (eight times slower for
 * LeNet's 20 channels).
 */
#include "nn/pool_tiling.h"
#include "nn/nn.h"

/* Returns 1 if b replaces a as the maximum: b is larger, or b is NaN and a is not. */
static inline int wins(float b, float a)
{
    return (b > a) | ((b != b) & (a == a));
}

static inline float larger(float a, float b)
{
    return wins(b, a) ? b : a;
}

ATOMO_CLONES static void forward(int64_t n, int64_t c, int64_t row, const float *restrict x, float *restrict y)
{
    for (int64_t o = 0; o < n; o++, x += 2 * c, y += c)
        for (int64_t i = 0; i < c; i++) y[i] = larger(larger(x[i], x[c + i]), larger(x[row + i], x[row + c + i]));
}

ATOMO_CLONES static void backward(int64_t n, int64_t c, int64_t row, const float *restrict x, const float *restrict gy,
                                  float *restrict gx)
{
    for (int64_t o = 0; o < n; o++, x += 2 * c, gx += 2 * c, gy += c)
        for (int64_t i = 0; i < c; i++) {
            const float a = x[i], b = x[c + i], d = x[row + i], e = x[row + c + i], g = gy[i];
            const int right = wins(b, a), right2 = wins(e, d), low = wins(larger(d, e), larger(a, b));
            gx[i] = low | right ? 0 : g;
            gx[c + i] = right & ~low ? g : 0;
            gx[row + i] = low & ~right2 ? g : 0;
            gx[row + c + i] = low & right2 ? g : 0;
        }
}

#ifdef ATOMO_X86
#include <immintrin.h>

enum { LANES = 16 };
#define AVX512           __attribute__((target("avx512f")))
#define LOAD(k, p)       _mm512_maskz_loadu_ps(k, p)
#define KEEP(k, p, m, v) _mm512_mask_storeu_ps(p, k, _mm512_maskz_mov_ps(m, v))

AVX512 static inline __mmask16 wins16(__m512 b, __m512 a)
{
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), b, a,
                                   _CMP_NLE_UQ); /* a is a number, !(b<=a) */
}

AVX512 static inline __m512 larger16(__m512 a, __m512 b)
{
    return _mm512_mask_mov_ps(a, wins16(b, a), b);
}

AVX512 static inline __mmask16 lanes_at(int64_t i, int64_t c) /* mask of the channels i .. i + 15 below c */
{
    return (__mmask16)(c - i >= LANES ? 0xffff : (1u << (c - i)) - 1);
}

AVX512 static void forward16(int64_t n, int64_t c, int64_t row, const float *x, float *y)
{
    for (int64_t o = 0; o < n; o++, x += 2 * c, y += c)
        for (int64_t i = 0; i < c; i += LANES) {
            const __mmask16 k = lanes_at(i, c);
            const __m512 top = larger16(LOAD(k, x + i), LOAD(k, x + c + i));
            const __m512 bottom = larger16(LOAD(k, x + row + i), LOAD(k, x + row + c + i));
            _mm512_mask_storeu_ps(y + i, k, larger16(top, bottom));
        }
}

AVX512 static void backward16(int64_t n, int64_t c, int64_t row, const float *x, const float *gy, float *gx)
{
    for (int64_t o = 0; o < n; o++, x += 2 * c, gx += 2 * c, gy += c)
        for (int64_t i = 0; i < c; i += LANES) {
            const __mmask16 k = lanes_at(i, c);
            const __m512 a = LOAD(k, x + i), b = LOAD(k, x + c + i), g = LOAD(k, gy + i);
            const __m512 d = LOAD(k, x + row + i), e = LOAD(k, x + row + c + i);
            const __mmask16 right = wins16(b, a), right2 = wins16(e, d), low = wins16(larger16(d, e), larger16(a, b));
            KEEP(k, gx + i, (__mmask16) ~(low | right), g);
            KEEP(k, gx + c + i, (__mmask16)(right & ~low), g);
            KEEP(k, gx + row + i, (__mmask16)(low & ~right2), g);
            KEEP(k, gx + row + c + i, (__mmask16)(low & right2), g);
        }
}

static bool is_wide(void)
{
    return __builtin_cpu_supports("avx512f") != 0;
}
#else
#define is_wide()  false
#define forward16  forward
#define backward16 backward
#endif

void atomo__pool_tiling_row(int64_t n, int64_t c, int64_t row, const float *x, float *y)
{
    atomo__ask(x, 2 * row, 2 * row, 0); /* the next row of windows */
    (is_wide() ? forward16 : forward)(n, c, row, x, y);
}

void atomo__pool_tiling_backward_row(int64_t n, int64_t c, int64_t row, const float *x, const float *gy, float *gx)
{
    atomo__ask(x, 2 * row, 2 * row, 0);
    atomo__ask(gx, 2 * row, 2 * row, 1);
    atomo__ask(gy, n * c, n * c, 0);
    (is_wide() ? backward16 : backward)(n, c, row, x, gy, gx);
}
