/* quantize.c - codes vectors as b-bit integers, stochastically rounded; stage 6 of the path.
 *
 * x_i = scale (q_i - c), q in 0 .. 2c, scale = max|x| / c. With 5 bits or more c = 2^(b-1) - 1, and 0 is a level. With
 * fewer bits c = (2^b - 1)/2, so that every code is used and 0 is no level. q is rounded up with probability equal to
 * the fraction f, so E xhat = x and E||xhat - x||^2 = scale^2 sum f (1 - f). At 16 bits fixed point is more accurate
 * than fp16, because the vectors are dense and of unit norm.
 */
#include "coding/messages.h"
#include "sampling/sampling.h"
#include <math.h>

/* The largest product of a code and a scale, just below FLT_MAX so that rounding cannot make it infinite. */
static const float LARGEST_SCALE = 3.4028233e38f;
/* With this many bits or fewer, 0 is not a level. */
enum { NO_ZERO_BITS = 4 };

static float centre(int bits)
{
    return bits <= NO_ZERO_BITS ? 0.5f * (float)((1 << bits) - 1) : (float)((1 << (bits - 1)) - 1);
}

float atomo__quant_limit(int bits)
{
    return LARGEST_SCALE / (bits == 32 ? 1 : centre(bits));
}

ATOMO_CLONES static float largest(const float *x, int64_t n)
{
    float m[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) m[l] = fabsf(x[i + l]) > m[l] ? fabsf(x[i + l]) : m[l];
    for (; i < n; i++) m[0] = fabsf(x[i]) > m[0] ? fabsf(x[i]) : m[0];
    for (int l = 1; l < 16; l++) m[0] = m[l] > m[0] ? m[l] : m[0];
    return m[0];
}

/* Rounds x to codes. work [n] holds uniforms in [0, 1) on entry, and the codes as int32 on return. */
ATOMO_CLONES static void round_codes(const float *x, int64_t n, float scale, float c, float *work)
{
    const int32_t whole = (int32_t)c, top = (int32_t)(2 * c);
    const float half = c - (float)whole;
    int32_t *code = (int32_t *)work;
    for (int64_t i = 0; i < n; i++) {
        float t = x[i] / scale + half, f = floorf(t);
        int32_t q = (int32_t)f + whole + (work[i] < t - f);
        code[i] = q < 0 ? 0 : q > top ? top : q;
    }
}

float atomo__quant_scale(const float *x, int64_t n, int bits)
{
    return bits == 32 ? 1 : largest(x, n) / centre(bits);
}

void atomo__quant_write(atomo__writer *w, const float *x, int64_t n, int bits, float scale, const atomo_stream *s,
                        uint32_t first, float *work)
{
    if (bits == 32) {
        for (int64_t i = 0; i < n; i++) atomo__put_f32(w, x[i]);
        return;
    }
    if (!(scale > 0)) { /* all entries are 0, so codes do not matter */
        for (int64_t i = 0; i < n; i++) atomo__put(w, 0, bits);
        return;
    }
    atomo_random_uniform(s, (double)first * (double)n, (double)n, work);
    round_codes(x, n, scale, centre(bits), work);
    const uint32_t *code = (const uint32_t *)work;
    for (int64_t i = 0; i < n; i++) atomo__put(w, code[i], bits);
}

void atomo__quant_read(atomo__reader *r, float *x, int64_t n, int bits)
{
    if (bits == 32) {
        for (int64_t i = 0; i < n; i++) {
            x[i] = atomo__get_f32(r);
            if (!isfinite(x[i])) r->bad = true;
        }
        return;
    }
    const float c = centre(bits);
    for (int64_t i = 0; i < n; i++) x[i] = (float)atomo__get(r, bits) - c;
}

ATOMO_CLONES static double rounding(const float *x, int64_t n, float scale, float half)
{
    double sum[16] = {0};
    for (int64_t i = 0; i < n; i += 16) {
        int len = (int)ATOMO_MIN((int64_t)16, n - i);
        for (int l = 0; l < len; l++) {
            float t = x[i + l] / scale + half, f = t - floorf(t);
            sum[l] += (double)(f * (1 - f));
        }
    }
    for (int l = 1; l < 16; l++) sum[0] += sum[l];
    return sum[0];
}

double atomo__quant_usual(double largest, int bits)
{
    const double c = (double)centre(bits);
    return bits == 32 ? 0 : largest / (6 * c * c); /* a step of max / c: the mean of f (1 - f) is 1 / 6 */
}

void atomo__quant_variance(const float *x, int64_t n, int bits, double *square, double *variance)
{
    double sum;
    float m;
    atomo__measure(x, n, &sum, square, &m);
    *variance = 0;
    if (bits == 32) return;
    float c = centre(bits), scale = m / c;
    if (scale > 0) *variance = (double)scale * (double)scale * rounding(x, n, scale, c - floorf(c));
}
