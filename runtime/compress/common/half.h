/* half.h - the stages of fp16.c and bf16.c (half.c). Private. */
#ifndef ATOMO_HALF_H
#define ATOMO_HALF_H

#include "compress/common/levels.h"
#include "tensor/float16.h"

extern const struct atomo__option atomo__half_options[];
bool atomo__half_biased(const double *option);

extern const struct atomo__linear atomo__fp16_linear, atomo__bf16_linear;

int atomo__fp16_plan(atomo__plan *plan);
int atomo__fp16_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
int atomo__fp16_decode(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);
int atomo__bf16_plan(atomo__plan *plan);
int atomo__bf16_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
int atomo__bf16_decode(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);
int atomo__bf16_decode_part(atomo__reader *r, int64_t n, float scale, float *acc);

#endif
