/* random.c - Philox4x32-10 [Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011].
 *
 * Key: the seed. Counter: {block, tensor, step, rank << 8 | purpose}. No two streams share a counter, so draws for
 * different steps, ranks, tensors and purposes are independent, and any element can be computed without the ones
 * before it.
 */
#include "core/core.h"
#include <math.h>
#ifdef ATOMO_X86
#include <immintrin.h>
#endif

static inline void philox(const uint32_t key[2], uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    for (int r = 0; r < 10; r++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void atomo_random_block(const atomo_stream *s, uint32_t index, uint32_t *out)
{
    philox(s->seed, index, s->tensor, s->step, s->rank << 8 | (s->purpose & 255), out);
}

/* out[4*nb] = blocks b0 .. b0+nb-1 as uniforms in [0, 1). The compiler vectorises the loop over blocks. */
ATOMO_CLONES static void uniform_blocks(const atomo_stream *s, uint32_t b0, uint32_t nb, float *out)
{
    const uint32_t tail = s->rank << 8 | (s->purpose & 255);
    for (uint32_t b = 0; b < nb; b++) {
        uint32_t v[4];
        philox(s->seed, b0 + b, s->tensor, s->step, tail, v);
        for (int j = 0; j < 4; j++) out[4 * (size_t)b + (size_t)j] = atomo__to_uniform(v[j]);
    }
}

ATOMO_CLONES static void words(const atomo_stream *s, uint32_t b0, uint32_t nb, uint32_t *out)
{
    const uint32_t tail = s->rank << 8 | (s->purpose & 255);
    for (uint32_t b = 0; b < nb; b++) philox(s->seed, b0 + b, s->tensor, s->step, tail, out + 4 * (size_t)b);
}

#ifdef ATOMO_X86
/* words() for eight blocks at a time. A word of the counter is the low half of a 64-bit lane. The multiplication
 * ignores the high half, so its content need not be cleared between rounds. Needs 1.7 instructions fewer per word than
 * the compiled loop above and is three times as fast. Returns the number of blocks written, a multiple of 8. */
__attribute__((target("avx512f,avx512dq"))) static uint32_t words_512(const atomo_stream *s, uint32_t b0, uint32_t nb,
                                                                      uint32_t *out)
{
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11),
                  high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    const __m512i lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    uint32_t b = 0;
    for (; b + 8 <= nb; b += 8) {
        __m512i c0 = _mm512_add_epi32(lanes, _mm512_set1_epi64((int64_t)(uint32_t)(b0 + b)));
        __m512i c1 = _mm512_set1_epi64((int64_t)s->tensor), c2 = _mm512_set1_epi64((int64_t)s->step);
        __m512i c3 = _mm512_set1_epi64((int64_t)(s->rank << 8 | (s->purpose & 255)));
        uint32_t k0 = s->seed[0], k1 = s->seed[1];
        for (int r = 0; r < 10; r++) {
            __m512i p0 = _mm512_mul_epu32(c0, m0), p1 = _mm512_mul_epu32(c2, m1);
            c0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c1, _mm512_set1_epi64((int64_t)k0), 0x96);
            c2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c3, _mm512_set1_epi64((int64_t)k1), 0x96);
            c1 = p1;
            c3 = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        __m512i first = _mm512_mask_blend_epi32(0xAAAA, c0, _mm512_slli_epi64(c1, 32));
        __m512i second = _mm512_mask_blend_epi32(0xAAAA, c2, _mm512_slli_epi64(c3, 32));
        _mm512_storeu_si512(out + 4 * (size_t)b, _mm512_permutex2var_epi64(first, low, second));
        _mm512_storeu_si512(out + 4 * (size_t)b + 16, _mm512_permutex2var_epi64(first, high, second));
    }
    return b;
}
#endif

void atomo__random_words(const atomo_stream *s, uint32_t b0, uint32_t nb, uint32_t *out)
{
    uint32_t done = 0;
#ifdef ATOMO_X86
    if (__builtin_cpu_supports("avx512dq")) done = words_512(s, b0, nb, out);
#endif
    if (done < nb) words(s, b0 + done, nb - done, out + 4 * (size_t)done);
}

ATOMO_CLONES void atomo__random_at(const atomo_stream *s, const uint32_t block[ATOMO__AT], uint32_t out[4 * ATOMO__AT])
{
    const uint32_t tail = s->rank << 8 | (s->purpose & 255);
    for (int b = 0; b < ATOMO__AT; b++) philox(s->seed, block[b], s->tensor, s->step, tail, out + 4 * b);
}

void atomo_random_uniform(const atomo_stream *s, double first, double n, float *out)
{
    uint64_t i = (uint64_t)first, end = i + (uint64_t)n;
    uint32_t v[4];
    while (i < end && (i & 3)) { /* up to the first whole block */
        atomo_random_block(s, (uint32_t)(i >> 2), v);
        *out++ = atomo__to_uniform(v[i & 3]);
        i++;
    }
    uint64_t whole = (end - i) >> 2;
    if (i < end && whole) uniform_blocks(s, (uint32_t)(i >> 2), (uint32_t)whole, out);
    out += 4 * whole;
    for (i += 4 * whole; i < end; i++) {
        atomo_random_block(s, (uint32_t)(i >> 2), v);
        *out++ = atomo__to_uniform(v[i & 3]);
    }
}

static double seed_value, seedings;
static uint64_t math_draws, tensor_draws; /* since the seed was set: numbers drawn by math.random, tensors filled */

void atomo_manual_seed(double seed)
{
    seed_value = seed;
    seedings++;
    math_draws = tensor_draws = 0;
}

double atomo_initial_seed(void)
{
    return seed_value;
}

double atomo_seedings(void)
{
    return seedings;
}

uint64_t atomo__next_draw(void)
{
    return tensor_draws++;
}

double atomo_random_double(void)
{
    uint64_t s = (uint64_t)seed_value, i = math_draws++;
    atomo_stream st = {{(uint32_t)s, (uint32_t)(s >> 32)}, ATOMO_RNG_MATH, 0, (uint32_t)(i >> 32), 0};
    uint32_t v[4];
    atomo_random_block(&st, (uint32_t)i, v);
    uint64_t bits = (uint64_t)v[0] << 32 | v[1];
    return (double)(bits >> 11) * 0x1p-53;
}

void atomo_random_draws(double *draws)
{
    draws[0] = (double)math_draws;
    draws[1] = (double)tensor_draws;
}

void atomo_random_set_draws(const double *draws)
{
    math_draws = (uint64_t)draws[0];
    tensor_draws = (uint64_t)draws[1];
}
