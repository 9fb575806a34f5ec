/* float16.h - conversion of f32 entries to the 16-bit formats fp16 and bf16, and back (float16.c). Private. */
#ifndef ATOMO_FLOAT16_H
#define ATOMO_FLOAT16_H

#include "tensor/tensor.h"

enum { ATOMO__TOP_BF16 = 0x7F7F, ATOMO__INF_FP16 = 0x7C00 }; /* the largest finite bf16; fp16's infinity */

/* code[i] = x[i] * up1 * up2, rounded, for n entries (at most ATOMO__CHUNK); up1 and up2 are powers of two. Returns the
 * squared error of the scaled entries, for stochastic rounding its expectation. u [n]: random words, read by stochastic
 * rounding only. */
typedef double atomo__half_round_fn(const float *x, int n, float up1, float up2, const uint32_t *u, uint16_t *code);
/* acc[i] += value of code[i] * down1 * down2. */
typedef void atomo__half_add_fn(const uint16_t *code, int n, float down1, float down2, float *acc);
typedef struct atomo__half {
    atomo__half_round_fn *round[2]; /* nearest, stochastic */
    atomo__half_add_fn *add;
} atomo__half;
extern const atomo__half atomo__fp16_format, atomo__bf16_format;

/* How an all-reduce rounds the partial sums that it sends (comm/ring_allreduce.c). */
typedef struct atomo__rounding {
    const atomo__half *format;
    bool stochastic;
    atomo_stream stream; /* this rank's random words, one per entry; read if stochastic */
    int64_t first;       /* word of the stream for entry 0 of the buffer */
    float *error;        /* out [count]: x - rounded x of the entries that this rank rounded; NULL: not wanted */
} atomo__rounding;
/* Rounds x [n], which holds entries at .. at + n - 1 of the buffer, into code [n], and sets the error of these entries.
 */
void atomo__half_round(const atomo__rounding *how, int64_t at, const float *x, int64_t n, uint16_t *code);

/* One element of dtype bf16 or f16, as IEEE 754 rounds: to nearest, ties to even; a number beyond the largest
 * one becomes infinite, and a NaN stays a NaN. */
static inline uint16_t atomo__bf16_of(float x)
{
    const union {
        float f;
        uint32_t u;
    } v = {x};
    const uint32_t rounded = v.u + 0x7FFF + (v.u >> 16 & 1), quiet = v.u | 0x400000;
    return (uint16_t)(((v.u & 0x7FFFFFFF) > 0x7F800000 ? quiet : rounded) >> 16);
}

static inline float atomo__bf16_value(uint16_t code)
{
    const union {
        uint32_t u;
        float f;
    } v = {(uint32_t)code << 16};
    return v.f;
}

static inline uint16_t atomo__f16_of(float x)
{
    const union {
        float f;
        uint32_t u;
    } v = {x};
    const uint32_t sign = v.u >> 16 & 0x8000, a = v.u & 0x7FFFFFFF;
    if (a > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (a >> 13 & 0x3FF));
    if (a >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* 65520 and more */
    if (a >= 0x38800000) return (uint16_t)(sign | (a - 0x38000000 + 0xFFF + (a >> 13 & 1)) >> 13);
    union {
        uint32_t u;
        float f;
    } small = {a};
    small.f += 0.5f; /* whose last bit is worth 2^-24, as that of a subnormal f16 */
    return (uint16_t)(sign | (small.u - 0x3F000000));
}

static inline float atomo__f16_value(uint16_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x8000) << 16, a = code & 0x7FFF;
    union {
        uint32_t u;
        float f;
    } v = {a << 13};
    if (a < 0x7C00)
        v.f *= 0x1p112f; /* from an f32's exponent, whose bias is 127, to that of an f16, 15; exact */
    else
        v.u |= 0x7F800000;
    v.u |= sign;
    return v.f;
}

/* Rounding to bf16 in the same way, for operands (bf16.c). Arrays have n elements and do not overlap. */
void atomo__bf16_codes(int64_t n, const float *x, uint16_t *code);  /* code = x, rounded */
void atomo__bf16_round(int64_t n, const float *x, float *y);        /* y = x, rounded, as f32 */
void atomo__bf16_values(int64_t n, const uint16_t *code, float *x); /* x = the value of code */

/* A kernel's operand may be packed: u8 [..., 2 c] for f32 [..., c] (atomo_bf16_pack). _seen: returns x as the f32
 * tensor that a kernel checks, *as with the address of the codes if x is packed, else x itself. _unpacked: *x = n
 * values, which the caller frees by atomo__free. */
const atomo_tensor *atomo__bf16_seen(const atomo_tensor *x, atomo_tensor *as);
int atomo__bf16_unpacked(const uint16_t *code, int64_t n, float **x);

#endif
