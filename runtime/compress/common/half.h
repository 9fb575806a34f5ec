/* half.h - the two 16-bit floats as messages (half.c); fp16 and bf16 are its descriptors. Private. */
#ifndef ATOMO_HALF_H
#define ATOMO_HALF_H

#include "compress/common/levels.h"

extern const struct atomo__option atomo__half_options[];
bool atomo__half_biased(const double *option);

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

extern const struct atomo__linear atomo__fp16_linear, atomo__bf16_linear;

int atomo__fp16_plan(atomo__part *part);
int atomo__fp16_encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w);
int atomo__fp16_decode(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc);
int atomo__bf16_plan(atomo__part *part);
int atomo__bf16_encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w);
int atomo__bf16_decode(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc);

#endif
