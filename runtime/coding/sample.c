/* sample.c - independent Bernoulli draws of atoms; stage 5 of the path.
 *
 * An entry is kept when u < p. u is read byte by byte: its first byte decides 255 times out of 256 (16 entries share
 * one Philox block), and where it equals p's own first byte the next 64 bits, from a stream of their own, decide. So p
 * is met to 2^-72, at a quarter of the random numbers, and however small p is: a 24-bit uniform would be 6 times too
 * generous at p = 1e-8.
 */
#include "coding/coding.h"
#include <math.h>

enum { CHUNK = 1024 };

static bool below(const atomo_stream *s, uint32_t i,
                  double frac) /* 64-bit uniform of element i < frac, 0 <= frac < 1 */
{
    uint32_t v[4];
    atomo_random_block(s, i, v);
    return (double)(((uint64_t)v[0] << 32 | v[1]) >> 11) * 0x1p-53 < frac ||
           (frac > 0 && frac < 0x1p-53 && v[0] == 0 && (v[1] >> 11) == 0 &&
            (double)((uint64_t)(v[1] & 2047) << 32 | v[2]) * 0x1p-96 < frac);
}

bool atomo__sample_one(const atomo_stream *s, uint32_t i, double p)
{
    return p >= 1 || below(s, i, p);
}

/* What an entry is before its tail is looked at: 0 out, 1 in, 2 ask for more bits, 3 saturated. */
ATOMO_CLONES static void classify(const float *x, int n, float tau, float scale, float inverse, const uint8_t *u,
                                  uint8_t *cls)
{
    for (int i = 0; i < n; i++) {
        float a = fabsf(x[i]), t = (a * scale) * inverse; /* 256 p */
        t = t < 255.99998f ? t : 255.99998f;
        int32_t q = (int32_t)t, b = u[i];
        int32_t draw = b < q ? 1 : b == q ? 2 : 0;
        cls[i] = (uint8_t)(a >= tau ? 3 : draw);
    }
}

static int64_t keep_all(const float *x, int64_t n, uint32_t *index)
{
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        index[m] = (uint32_t)i | ATOMO__SATURATED;
        m += x[i] != 0;
    }
    return m;
}

int64_t atomo__sample_entries(const float *x, int64_t n, float tau, const atomo_stream *s, uint32_t *index)
{
    if (!(tau > 0)) return keep_all(x, n, index);
    if (isinf(tau)) return 0;
    atomo_stream first = *s, tail = *s;
    first.purpose = ATOMO_RNG_SAMPLE;
    tail.purpose = ATOMO_RNG_SAMPLE_TAIL;
    int e;
    frexpf(tau, &e); /* a power of two brings tau near 1, so that 256/tau is in range */
    e = ATOMO_MAX(ATOMO_MIN(e, 126), -126);
    float scale = ldexpf(1, -e), inverse = 256.0f / (tau * scale);
    uint32_t words[CHUNK / 4];
    uint8_t cls[CHUNK + 8];
    int64_t m = 0;
    for (int64_t at = 0; at < n; at += CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)CHUNK, n - at);
        atomo__random_words(&first, (uint32_t)(at / 16), CHUNK / 16, words);
        classify(x + at, len, tau, scale, inverse, (const uint8_t *)words, cls);
        memset(cls + len, 0, 8);
        for (int i = 0; i < len; i += 8) {
            uint64_t eight;
            memcpy(&eight, cls + i, 8);
            for (; eight; eight &= ~((uint64_t)255 << (__builtin_ctzll(eight) & ~7))) {
                int j = i + __builtin_ctzll(eight) / 8;
                uint32_t k = (uint32_t)(at + j);
                if (cls[j] == 2) {
                    float t = (fabsf(x[k]) * scale) * inverse;
                    t = t < 255.99998f ? t : 255.99998f;
                    if (!below(&tail, k, (double)(t - floorf(t)))) continue;
                }
                index[m++] = k | (cls[j] == 3 ? ATOMO__SATURATED : 0);
            }
        }
    }
    return m;
}
