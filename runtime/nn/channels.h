/* channels.h - the memory layout of per-channel kernels: [rows, C] as one long array in which channels repeat. Private.
 *
 * Vectors of C per-channel values are repeated to a period of at least 256 floats, so that inner loops are long for any
 * C. Rows are divided into blocks that stay in cache. A block is computed by one thread, and the results of blocks are
 * combined in order.
 */
#ifndef ATOMO_CHANNELS_H
#define ATOMO_CHANNELS_H

#include "nn/nn.h"

enum { PERIOD = 256, BLOCK_FLOATS = 8192, BLOCK_ROWS_MIN = 32 };

typedef struct layout {
    int64_t rows, c, period, block, blocks; /* period: floats of the repeated vectors; block: floats of a block */
} layout;

static inline layout layout_of(const atomo_tensor *x)
{
    layout l = {.c = atomo__size(x, -1)};
    l.rows = l.c ? atomo__numel(x) / l.c : 0;
    int64_t repeat = l.c < PERIOD ? (PERIOD + l.c - 1) / ATOMO_MAX(l.c, 1) : 1;
    l.period = repeat * l.c;
    int64_t rows = ATOMO_MAX(BLOCK_ROWS_MIN, BLOCK_FLOATS / ATOMO_MAX(l.c, 1));
    l.block = (rows + repeat - 1) / repeat * l.period;
    l.blocks = l.c ? (l.rows * l.c + l.block - 1) / l.block : 0;
    return l;
}

/* Returns the number of floats in block b; the last one may be shorter. */
static inline int64_t block_size(const layout *l, int64_t b)
{
    return ATOMO_MIN(l->block, l->rows * l->c - b * l->block);
}

static inline void repeat(const layout *l, float *v) /* v[0..c) -> v[0..period) */
{
    for (int64_t i = l->c; i < l->period; i++) v[i] = v[i - l->c];
}

static inline void fold(const layout *l, float *v) /* sums the repeats into v[0..c) */
{
    for (int64_t o = l->c; o < l->period; o += l->c)
        for (int64_t i = 0; i < l->c; i++) v[i] += v[o + i];
}

static inline int new_floats(size_t n, float **out)
{
    void *p;
    ATOMO_TRY(atomo__alloc(&p, n * sizeof(float)));
    *out = p;
    return ATOMO_OK;
}

/* Replaces mean and m2 [c] of the channels whose mean is far from 0 (atomo__mean_is_far) by values computed in double.
 */
int atomo__channel_moments(const layout *l, const float *x, double eps, double *mean, double *m2);
/* rest[c] = atomo__mean_rest of channel c. */
int atomo__channel_rests(const layout *l, const float *x, const float *mean, const float *invstd, float *rest);

#endif
