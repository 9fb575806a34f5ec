/* vmath.h - exp, tanh, sigmoid and erf without branches or calls, so that the compiler vectorises loops over them.
 * Private.
 *
 * exp and tanh use the polynomials of Cephes' expf and tanhf: the error is at most 2 units in the last place. Like
 * expf, exp overflows to Inf and underflows through the subnormal numbers to 0. erf is Abramowitz & Stegun 7.1.26: the
 * absolute error is at most 2e-7. NaN gives NaN.
 */
#ifndef ATOMO_VMATH_H
#define ATOMO_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Returns 2^n for n from -126 to 127, and 0 for -127. */
static inline float atomo__power_of_two(int32_t n)
{
    const uint32_t bits = ((uint32_t)n + 127u) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Returns p and sets *n, so that exp(x) = p 2^n, after clamping x to [lo, hi]. */
static inline float atomo__exp_parts(float x, float lo, float hi, int32_t *n)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits */
    x = x < lo ? lo : x;
    x = x > hi ? hi : x;
    float shifted = x * 1.44269504088896341f + magic, whole = shifted - magic;
    float r = x - whole * 0.693359375f - whole * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    *n = (int32_t)(bits - 0x4B400000u);
    return p * r * r + r + 1.0f;
}

static inline float atomo__exp(float x)
{
    int32_t n; /* -150 to 128: 2^n may be no float, so two powers are multiplied in; only the second can round */
    const float p = atomo__exp_parts(x, -104.0f, 89.0f, &n);
    return p * atomo__power_of_two(n >> 1) * atomo__power_of_two(n - (n >> 1));
}

/* exp with x clamped to [-87.3, 88]: results stay between about 1e-38 and 1.7e38. A sixth faster than atomo__exp. */
static inline float atomo__exp_within(float x)
{
    int32_t n;
    const float p = atomo__exp_parts(x, -87.3f, 88.0f, &n);
    return p * atomo__power_of_two(n);
}

/* exp with x clamped below at -87.3: results are at least about 1e-38, and overflow to Inf. */
static inline float atomo__exp_above(float x)
{
    int32_t n; /* -126 to 128 */
    const float p = atomo__exp_parts(x, -87.3f, 89.0f, &n);
    return p * atomo__power_of_two(n - 1) * 2.0f;
}

static inline float atomo__sigmoid(float x)
{
    return 1.0f / (1.0f + atomo__exp_above(-x));
}

static inline float atomo__tanh(float x)
{
    float z = x * x, p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float small = p * z * x + x, a = fabsf(x);
    float large = copysignf(1.0f - 2.0f / (atomo__exp_within(2.0f * a) + 1.0f), x);
    return a > 0.625f ? large : small; /* NaN: small */
}

static inline float atomo__erf(float x)
{
    float a = fabsf(x), t = 1.0f / (1.0f + 0.3275911f * a), p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    return copysignf(1.0f - p * t * atomo__exp_within(-a * a), x);
}

/* Returns the sum of n floats: 16 partial sums in f32, added up in double. */
static inline double atomo__lane_sum(const float *x, int64_t n)
{
    float lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) lane[k] += x[i + k];
    for (int k = 0; i < n; i++, k++) lane[k] += x[i];
    double sum = 0;
    for (int k = 0; k < 16; k++) sum += (double)lane[k];
    return sum;
}

/* Returns the inner product of x and y, computed in the same way. */
static inline double atomo__lane_dot(const float *x, const float *y, int64_t n)
{
    float lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) lane[k] += x[i + k] * y[i + k];
    for (int k = 0; i < n; i++, k++) lane[k] += x[i] * y[i];
    double sum = 0;
    for (int k = 0; k < 16; k++) sum += (double)lane[k];
    return sum;
}

#endif
