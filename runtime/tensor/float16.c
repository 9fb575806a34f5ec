/* float16.c - rounding to the two 16-bit floating-point formats: fp16 (IEEE 754 binary16) and bf16, the upper 16 bits
 * of an f32.
 *
 * Nearest rounds ties to even: the error is at most half a unit in the last place, but its mean is not 0 (biased).
 * Stochastic rounds up with a probability equal to the fraction that is cut off, in units in the last place. It is
 * unbiased: up to 2^-24 of a unit in the last place for fp16's subnormal numbers, and exactly for all others. Values
 * that would round to 2^128 in bf16 become bf16's largest finite number.
 */
#include "tensor/float16.h"
#include <math.h>
#include <string.h>

static inline uint32_t bits_of(float x)
{
    union {
        float f;
        uint32_t u;
    } v = {x};
    return v.u;
}

static inline float float_of(uint32_t bits)
{
    union {
        uint32_t u;
        float f;
    } v = {bits};
    return v.f;
}

/* Returns the fp16 code of |x|, whose f32 bits are a: truncated for u = 0, rounded stochastically for a random word u.
 */
static inline uint32_t fp16_up(uint32_t a, uint32_t u)
{
    float t = float_of(a) * 0x1p24f; /* in units in the last place of a subnormal fp16 */
    int32_t j = (int32_t)(t < 1024 ? t : 1024);
    uint32_t small = (uint32_t)j + ((float)(u >> 8) * 0x1p-24f > 1 - (t - (float)j) ? 1 : 0);
    uint32_t normal = (a - 0x38000000 + (u >> 19)) >> 13;
    return a < 0x38800000 ? small : normal;
}

static inline uint32_t fp16_nearest(uint32_t a)
{
    float t = float_of(a) * 0x1p24f;
    int32_t j = (int32_t)(t < 1024 ? t : 1024);
    float f = t - (float)j;
    uint32_t small = (uint32_t)(j + (f > 0.5f || (f == 0.5f && (j & 1)) ? 1 : 0));
    uint32_t normal = (a - 0x38000000 + 0xFFF + (a >> 13 & 1)) >> 13;
    return a < 0x38800000 ? small : normal;
}

static inline float fp16_value(uint32_t h) /* of a code without its sign bit */
{
    return h < 0x400 ? (float)(int32_t)h * 0x1p-24f : float_of((h << 13) + 0x38000000);
}

static inline uint32_t fp16_next(uint32_t h)
{
    return h + 1;
}

static inline uint32_t bf16_up(uint32_t a, uint32_t u)
{
    uint32_t h = (a + (u >> 16)) >> 16;
    return h > ATOMO__TOP_BF16 ? ATOMO__TOP_BF16 : h;
}

static inline uint32_t bf16_nearest(uint32_t a)
{
    uint32_t h = (a + 0x7FFF + (a >> 16 & 1)) >> 16;
    return h > ATOMO__TOP_BF16 ? ATOMO__TOP_BF16 : h;
}

static inline float bf16_value(uint32_t h)
{
    return float_of(h << 16);
}

static inline uint32_t bf16_next(uint32_t h)
{
    return h < ATOMO__TOP_BF16 ? h + 1 : h;
}

#define FORMAT(name)                                                                                                   \
    ATOMO_CLONES static double name##_round_nearest(const float *restrict x, int n, float up1, float up2,              \
                                                    const uint32_t *restrict u, uint16_t *restrict code)               \
    {                                                                                                                  \
        double noise[ATOMO__CHUNK];                                                                                    \
        (void)u;                                                                                                       \
        for (int i = 0; i < n; i++) {                                                                                  \
            uint32_t b = bits_of(x[i] * up1 * up2), a = b & 0x7FFFFFFF, h = name##_nearest(a);                         \
            double d = (double)float_of(a) - (double)name##_value(h);                                                  \
            noise[i] = d * d;                                                                                          \
            code[i] = (uint16_t)(h | (b >> 16 & 0x8000));                                                              \
        }                                                                                                              \
        return atomo__sum_chunk(noise, n);                                                                             \
    }                                                                                                                  \
    ATOMO_CLONES static double name##_round_stochastic(const float *restrict x, int n, float up1, float up2,           \
                                                       const uint32_t *restrict u, uint16_t *restrict code)            \
    {                                                                                                                  \
        double noise[ATOMO__CHUNK];                                                                                    \
        for (int i = 0; i < n; i++) {                                                                                  \
            uint32_t b = bits_of(x[i] * up1 * up2), a = b & 0x7FFFFFFF, h = name##_up(a, u[i]), lo = name##_up(a, 0);  \
            double y = (double)float_of(a);                                                                            \
            noise[i] = fabs((y - (double)name##_value(lo)) * ((double)name##_value(name##_next(lo)) - y));             \
            code[i] = (uint16_t)(h | (b >> 16 & 0x8000));                                                              \
        }                                                                                                              \
        return atomo__sum_chunk(noise, n);                                                                             \
    }                                                                                                                  \
    ATOMO_CLONES static void name##_add(const uint16_t *restrict code, int n, float down1, float down2,                \
                                        float *restrict acc)                                                           \
    {                                                                                                                  \
        for (int i = 0; i < n; i++) {                                                                                  \
            float v = name##_value(code[i] & 0x7FFF) * down1 * down2;                                                  \
            acc[i] += float_of(bits_of(v) ^ (uint32_t)(code[i] & 0x8000) << 16);                                       \
        }                                                                                                              \
    }
FORMAT(fp16)
FORMAT(bf16)

const atomo__half atomo__fp16_format = {{fp16_round_nearest, fp16_round_stochastic}, fp16_add};
const atomo__half atomo__bf16_format = {{bf16_round_nearest, bf16_round_stochastic}, bf16_add};

void atomo__half_round(const atomo__rounding *how, int64_t at, const float *x, int64_t n, uint16_t *code)
{
    uint32_t random[ATOMO__CHUNK + 4] = {0};
    for (int64_t i = 0; i < n; i += ATOMO__CHUNK) {
        const int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, n - i);
        const int64_t word = how->first + at + i;
        if (how->stochastic)
            atomo__random_words(&how->stream, (uint32_t)(word / 4), (uint32_t)(len + word % 4 + 3) / 4, random);
        how->format->round[how->stochastic](x + i, len, 1, 1, random + word % 4, code + i);
        if (!how->error) continue;
        memcpy(how->error + at + i, x + i, sizeof(float) * (size_t)len);
        how->format->add(code + i, len, -1, 1, how->error + at + i);
    }
}
