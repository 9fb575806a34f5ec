/* float16.h - entries as floats of 16 bits: fp16 and bf16 (float16.c). Private. */
#ifndef ATOMO_FLOAT16_H
#define ATOMO_FLOAT16_H

#include "tensor/tensor.h"

enum { ATOMO__TOP_BF16 = 0x7F7F, ATOMO__INF_FP16 = 0x7C00 }; /* the largest finite bf16; fp16's infinity */

/* n entries, times two powers of two, as codes; returns the squared error (stochastic: its expectation). At most
 * ATOMO__CHUNK at once. u: a random word an entry. */
typedef double atomo__half_round_fn(const float *x, int n, float up1, float up2, const uint32_t *u, uint16_t *code);
/* acc += values of codes, times two factors. */
typedef void atomo__half_add_fn(const uint16_t *code, int n, float down1, float down2, float *acc);
typedef struct atomo__half {
    atomo__half_round_fn *round[2]; /* nearest, stochastic */
    atomo__half_add_fn *add;
} atomo__half;
extern const atomo__half atomo__fp16_format, atomo__bf16_format;

/* How a sum is rounded on its way (comm/ring_allreduce.c). */
typedef struct atomo__rounding {
    const atomo__half *format;
    bool stochastic;
    atomo_stream stream; /* of this rank: the random words of entry i */
    int64_t first;       /* number of the buffer's first entry in the stream */
    float *error;        /* [count], or NULL: what this rank's rounding left out */
} atomo__rounding;
/* Entries at .. at + n - 1 of the buffer, which are x, as codes; sets their error. */
void atomo__half_round(const atomo__rounding *how, int64_t at, const float *x, int64_t n, uint16_t *code);

#endif
