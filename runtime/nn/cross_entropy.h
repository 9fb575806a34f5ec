/* cross_entropy.h - the parts of a row's cross entropy that loss.c and linear_cross_entropy.c share. With targets t and
 * logits x [c], the loss is sum t_k (log sum exp(x) - x_k). Private. */
#ifndef ATOMO_CROSS_ENTROPY_H
#define ATOMO_CROSS_ENTROPY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct atomo__row_sum { /* a row's sum of exponentials */
    double top, rest;           /* its log is top + rest; kept apart because a large top would absorb rest */
    float inverse;              /* 1 / the sum of exp(x - top) */
} atomo__row_sum;

/* Returns one class's term of the loss, t (top + rest - x), or 0 if the target t is 0, even for a logit of -Inf. If the
 * row has a NaN the result is NaN. */
static inline double atomo__cross_entropy_term(double t, const atomo__row_sum *s, double x)
{
    return t == 0 && s->rest == s->rest ? 0 : t * (s->top - x + s->rest);
}

/* g[k] = scale * (softmax(x)_k - target), where g holds exp(x - top) before, and target is smooth / c, plus 1 - smooth
 * at class y. */
static inline void atomo__cross_entropy_gradient(float *g, int64_t c, int32_t y, const atomo__row_sum *s, double smooth,
                                                 float scale)
{
    const float share = (float)(smooth / (double)c), inverse = s->inverse;
    for (int64_t k = 0; k < c; k++) g[k] = (g[k] * inverse - share) * scale;
    g[y] -= (float)(1 - smooth) * scale;
}

/* Is x[y] the first of the largest numbers, NaN being larger than any? As argmax. */
static inline bool atomo__is_argmax(const float *x, int64_t c, int32_t y)
{
    const float at = x[y];
    for (int64_t k = 0; k < y; k++)
        if (x[k] >= at || x[k] != x[k]) return false;
    for (int64_t k = y + 1; k < c && at == at; k++)
        if (x[k] > at || x[k] != x[k]) return false;
    return true;
}

#endif
