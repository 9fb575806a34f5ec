/* random.c - Philox4x32-10 [Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011].
 *
 * Key: the seed. Counter: {block, tensor, step, rank << 8 | purpose}. No two streams share a counter, so draws for
 * different steps, ranks, tensors and purposes are independent, and any element can be had without the ones before it.
 */
#include "core/core.h"
#include <math.h>

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

/* Blocks b0 .. b0+nb-1 as uniforms; the block loop is the one that vectorises. */
ATOMO_CLONES static void uniform_blocks(const atomo_stream *s, uint32_t b0, uint32_t nb, float *out)
{
    const uint32_t tail = s->rank << 8 | (s->purpose & 255);
    for (uint32_t b = 0; b < nb; b++) {
        uint32_t v[4];
        philox(s->seed, b0 + b, s->tensor, s->step, tail, v);
        for (int j = 0; j < 4; j++) out[4 * (size_t)b + (size_t)j] = atomo__to_uniform(v[j]);
    }
}

/* Blocks b0 .. b0+nb-1 as they are, 4 words each. */
ATOMO_CLONES void atomo__random_words(const atomo_stream *s, uint32_t b0, uint32_t nb, uint32_t *out)
{
    const uint32_t tail = s->rank << 8 | (s->purpose & 255);
    for (uint32_t b = 0; b < nb; b++) philox(s->seed, b0 + b, s->tensor, s->step, tail, out + 4 * (size_t)b);
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

static double seed_value;
static uint64_t math_draws;

void atomo_manual_seed(double seed)
{
    seed_value = seed;
    math_draws = 0;
    atomo__restart_fill();
}

double atomo_initial_seed(void)
{
    return seed_value;
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
