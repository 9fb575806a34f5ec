/* batch_norm_backward.c - the gradients of batch_norm.c.
 *
 *   g = gy where y > 0 (with ReLU);  gbeta = sum g;  ggamma = invstd sum g (x - mean);  gresidual = g
 *   gx = gamma invstd (g - gbeta / n - (x - mean) invstd^2 sum g (x - mean) / n)      (training)
 *   gx = gamma invstd g                                                               (evaluation)
 *
 * Without a residual the mask y > 0 is computed again from x, by the same arithmetic as in the forward, so y is not
 * read: 4 reads and 1 write of arrays of x's size. With a residual, the first pass writes g to gresidual, which may be
 * the same array as gy, and the second pass reads it: 5 reads and 2 writes. Blocks are summed and combined as in
 * batch_norm.c. Packed x and y (tensor/float16.h) are unpacked a block at a time. Path: stage 3.
 */
#include "nn/channels.h"
#include "tensor/float16.h"
#include <omp.h>
#include <string.h>

enum mask { MASK_NONE, MASK_X, MASK_Y }; /* the ReLU's mask: there is none, computed from x, read from y */

typedef struct channels {               /* arrays of one period */
    float *mean, *scale, *beta, *a, *b; /* gx = scale g + a (x - mean) + b */
} channels;

/* s1 += g, s2 += g (x - mean). With MASK_Y g is written, too; it may be the same array as gy. */
ATOMO_CLONES static void reduce(int64_t n, int64_t period, int64_t ahead, enum mask mask, const channels *ch,
                                const float *restrict x, const float *restrict y, const float *gy, float *g,
                                float *restrict s1, float *restrict s2)
{
    const float *restrict mean = ch->mean, *restrict scale = ch->scale, *restrict beta = ch->beta;
    for (int64_t o = 0; o < n; o += period) {
        const int64_t m = ATOMO_MIN(period, n - o);
        const float *restrict xo = x + o, *go = gy + o;
        atomo__ask(xo, ahead, m, 0);
        atomo__ask(go, ahead, m, g == gy);
        if (mask == MASK_Y) {
            atomo__ask(y + o, ahead, m, 0);
            if (g != gy) atomo__ask(g + o, ahead, m, 1);
        }
        if (mask == MASK_Y)
#pragma GCC ivdep /* g may be gy */
            for (int64_t i = 0; i < m; i++) {
                float t = y[o + i] > 0 ? go[i] : 0;
                g[o + i] = t;
                s1[i] += t;
                s2[i] += t * (xo[i] - mean[i]);
            }
        else if (mask == MASK_X)
            for (int64_t i = 0; i < m; i++) {
                float d = xo[i] - mean[i], t = d * scale[i] + beta[i] > 0 ? go[i] : 0;
                s1[i] += t;
                s2[i] += t * d;
            }
        else
            for (int64_t i = 0; i < m; i++) {
                s1[i] += go[i];
                s2[i] += go[i] * (xo[i] - mean[i]);
            }
    }
}

ATOMO_CLONES static void apply(int64_t n, int64_t period, int64_t ahead, enum mask mask, const channels *ch,
                               const float *restrict x, const float *restrict g, float *restrict gx)
{
    const float *restrict mean = ch->mean, *restrict scale = ch->scale, *restrict beta = ch->beta;
    const float *restrict a = ch->a, *restrict b = ch->b;
    for (int64_t o = 0; o < n; o += period) {
        const int64_t m = ATOMO_MIN(period, n - o);
        const float *restrict xo = x + o, *restrict go = g + o;
        float *restrict out = gx + o;
        atomo__ask(xo, ahead, m, 0);
        atomo__ask(go, ahead, m, 0);
        atomo__ask(out, ahead, m, 1);
        if (mask == MASK_X)
            for (int64_t i = 0; i < m; i++) {
                float d = xo[i] - mean[i], t = d * scale[i] + beta[i] > 0 ? go[i] : 0;
                out[i] = scale[i] * t + a[i] * d + b[i];
            }
        else
            for (int64_t i = 0; i < m; i++) out[i] = scale[i] * go[i] + a[i] * (xo[i] - mean[i]) + b[i];
    }
}

/* gx in evaluation: mean and invstd are constants, and x is read only for the ReLU's mask. */
ATOMO_CLONES static void apply_constant(int64_t n, int64_t period, enum mask mask, const channels *ch,
                                        const float *restrict x, const float *restrict g, float *restrict gx)
{
    const float *restrict mean = ch->mean, *restrict scale = ch->scale, *restrict beta = ch->beta;
    for (int64_t o = 0; o < n; o += period) {
        const int64_t m = ATOMO_MIN(period, n - o);
        const float *restrict xo = x + o, *restrict go = g + o;
        float *restrict out = gx + o;
        if (mask == MASK_X)
            for (int64_t i = 0; i < m; i++) out[i] = (xo[i] - mean[i]) * scale[i] + beta[i] <= 0 ? 0 : scale[i] * go[i];
        else
            for (int64_t i = 0; i < m; i++) out[i] = scale[i] * go[i];
    }
}

typedef struct job {
    layout l;
    enum mask mask;
    bool big, training;
    channels ch;
    const float *x, *y, *gy;   /* x, y: NULL if packed */
    const uint16_t *x16, *y16; /* the codes of packed x and y (tensor/float16.h) */
    float *g, *gx;             /* g: gresidual, NULL unless mask is MASK_Y; gx: NULL if it is not wanted */
} job;

/* Floats of scratch memory for one thread's unpacked blocks of x and y. */
static int64_t unpacked_floats(const job *j)
{
    return j->x16 || j->y16 ? 2 * j->l.block : 0;
}

/* Returns the block of x, or of y, that begins at `at`: part of x, or n values of codes in `space` [l.block]. */
static const float *block_of(const float *x, const uint16_t *code, int64_t at, int64_t n, float *space)
{
    if (!code) return x ? x + at : NULL;
    atomo__bf16_values(n, code + at, space);
    return space;
}

/* Writes block b's sums s1 and s2 [c each] to its place in part [blocks, 2, c]; s1, s2: scratch of one period each. */
static void reduce_block(const job *j, int64_t b, float *s1, float *s2, float *part)
{
    const layout *l = &j->l;
    const int64_t at = b * l->block, n = block_size(l, b);
    float *space = s1 + 2 * l->period;
    const float *x = block_of(j->x, j->x16, at, n, space), *y = block_of(j->y, j->y16, at, n, space + l->block);
    memset(s1, 0, (size_t)l->period * sizeof(float));
    memset(s2, 0, (size_t)l->period * sizeof(float));
    reduce(n, l->period, l->block, j->mask, &j->ch, x, y, j->gy + at, j->g ? j->g + at : NULL, s1, s2);
    fold(l, s1);
    fold(l, s2);
    memcpy(part + b * 2 * l->c, s1, (size_t)l->c * sizeof(float));
    memcpy(part + b * 2 * l->c + l->c, s2, (size_t)l->c * sizeof(float));
}

/* sums[0..c) = sum of g, sums[c..2c) = sum of g (x - mean), over all rows. */
static int reduce_all(const job *j, double *sums)
{
    const layout *l = &j->l;
    float *part;
    const int64_t apart = 2 * l->period + unpacked_floats(j);
    ATOMO_TRY(new_floats((size_t)(l->blocks * 2 * l->c + omp_get_max_threads() * apart), &part));
    float *s1 = part + l->blocks * 2 * l->c, *s2 = s1 + l->period; /* of thread 0; what is unpacked follows */
    ATOMO_FOR(b, l->blocks, 1, j->big,
              reduce_block(j, b, s1 + omp_get_thread_num() * apart, s2 + omp_get_thread_num() * apart, part));
    memset(sums, 0, (size_t)(2 * l->c) * sizeof(double));
    for (int64_t b = 0; b < l->blocks; b++)
        for (int64_t i = 0; i < 2 * l->c; i++) sums[i] += (double)part[b * 2 * l->c + i];
    atomo__free(part);
    return ATOMO_OK;
}

static void apply_block(const job *j, int64_t b, float *space)
{
    const layout *l = &j->l;
    const float *g = j->g ? j->g : j->gy;
    const int64_t at = b * l->block;
    const float *x = block_of(j->x, j->x16, at, block_size(l, b), space);
    const enum mask mask = j->mask == MASK_X ? MASK_X : MASK_NONE;
    if (j->training)
        apply(block_size(l, b), l->period, -l->block, mask, &j->ch, x, g + at, j->gx + at);
    else
        apply_constant(block_size(l, b), l->period, mask, &j->ch, x, g + at, j->gx + at);
}

static int apply_all(const job *j) /* from last to first: the blocks that the reduction read last are still in cache */
{
    float *space;
    const int64_t apart = unpacked_floats(j);
    ATOMO_TRY(new_floats((size_t)(omp_get_max_threads() * apart), &space));
    ATOMO_FOR(k, j->l.blocks, 1, j->big, apply_block(j, j->l.blocks - 1 - k, space + omp_get_thread_num() * apart));
    atomo__free(space);
    return ATOMO_OK;
}

/* atomo__channel_rests of x, which is unpacked only if a mean is far from 0, so that x is read. */
static int rests(const job *j, const float *mean, const float *invstd, float *rest)
{
    float *values = NULL;
    bool far = false;
    for (int64_t i = 0; i < j->l.c; i++) far |= atomo__mean_is_far((double)mean[i], (double)invstd[i]);
    if (j->x16 && far) ATOMO_TRY(atomo__bf16_unpacked(j->x16, j->l.rows * j->l.c, &values));
    const int rc = atomo__channel_rests(&j->l, values ? values : j->x, mean, invstd, rest);
    atomo__free(values);
    return rc;
}

static int run(job *j, const atomo_tensor *gamma, const atomo_tensor *beta, const atomo_tensor *mean,
               const atomo_tensor *invstd, float *ggamma, float *gbeta)
{
    const layout *l = &j->l;
    const int64_t p = l->period, c = l->c;
    float *v = NULL;
    void *sums_space;
    ATOMO_TRY(atomo__alloc(&sums_space, (size_t)(2 * c) * sizeof(double)));
    double *sums = sums_space;
    int rc = new_floats((size_t)(5 * p + c), &v);
    float *rest = v + 5 * p; /* of the means (moments.c); 0 except for channels far from 0 */
    if (rc == 0) {
        memset(rest, 0, (size_t)c * sizeof(float));
        if (j->training) rc = rests(j, atomo__f32(mean), atomo__f32(invstd), rest);
    }
    if (rc == 0) {
        j->ch = (channels){v, v + p, v + 2 * p, v + 3 * p, v + 4 * p};
        for (int64_t i = 0; i < c; i++) {
            v[i] = atomo__f32(mean)[i];
            v[p + i] = atomo__f32(gamma)[i] * atomo__f32(invstd)[i];
            v[2 * p + i] = atomo__f32(beta)[i];
            if (rest[i] != 0) v[2 * p + i] -= rest[i] * v[p + i];
        }
        for (int k = 0; k < 3; k++) repeat(l, v + k * p);
        rc = reduce_all(j, sums);
    }
    for (int64_t i = 0; rc == 0 && i < c; i++) {
        const double n = (double)ATOMO_MAX(l->rows, 1), is = (double)atomo__f32(invstd)[i], scale = (double)v[p + i];
        const double r = (double)rest[i];
        if (r != 0) sums[c + i] -= r * sums[i];
        gbeta[i] = (float)sums[i];
        ggamma[i] = (float)(sums[c + i] * is);
        v[3 * p + i] = (float)(-scale * is * is * sums[c + i] / n);
        v[4 * p + i] = (float)(-scale * sums[i] / n);
        if (r != 0) v[4 * p + i] = (float)(scale * (is * is * sums[c + i] * r - sums[i]) / n);
    }
    if (rc == 0 && j->gx) {
        repeat(l, v + 3 * p);
        repeat(l, v + 4 * p);
        rc = apply_all(j);
    }
    atomo__free(v);
    atomo__free(sums_space);
    return rc;
}

static int expect_channels(const atomo_tensor *t, const atomo_tensor *x, const char *name)
{
    ATOMO_REQUIRE(t && t->dtype == ATOMO_F32 && t->ndim == 1 && t->shape[0] == x->shape[x->ndim - 1] &&
                      atomo_tensor_is_contiguous(t),
                  ATOMO_ESHAPE, "batch_norm backward: %s is %s, input is %s: expected f32 [%.0f]", name,
                  t ? atomo__shape_text(t) : "missing", atomo__shape_text(x), x->shape[x->ndim - 1]);
    return ATOMO_OK;
}

int atomo_batch_norm_backward(const atomo_tensor *x, const atomo_tensor *y, const atomo_tensor *gy,
                              const atomo_tensor *gamma, const atomo_tensor *beta, const atomo_tensor *mean,
                              const atomo_tensor *invstd, int relu, int training, atomo_tensor **gx,
                              atomo_tensor **gresidual, atomo_tensor **ggamma, atomo_tensor **gbeta)
{
    ATOMO_MAKING(made, x, y, gy, gamma, beta, mean, invstd);
    atomo_tensor x_as, y_as;
    const atomo_tensor *packed_x = x, *packed_y = y;
    x = atomo__bf16_seen(x, &x_as);
    y = atomo__bf16_seen(y, &y_as);
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "batch_norm backward: input"));
    ATOMO_REQUIRE(x->ndim >= 2, ATOMO_ESHAPE, "batch_norm backward: input is %s", atomo__shape_text(x));
    ATOMO_TRY(atomo__expect_gradient(gy, x->ndim, x->shape, "batch_norm backward"));
    ATOMO_TRY(expect_channels(gamma, x, "weight"));
    ATOMO_TRY(expect_channels(beta, x, "bias"));
    ATOMO_TRY(expect_channels(mean, x, "mean"));
    ATOMO_TRY(expect_channels(invstd, x, "invstd"));
    const bool by_y = relu && gresidual;
    if (by_y) ATOMO_TRY(atomo__expect(y, ATOMO_F32, x->ndim, "batch_norm backward: y"));
    ATOMO_REQUIRE(!by_y || atomo__same_shape(x, y), ATOMO_ESHAPE, "batch_norm backward: y is %s, input is %s",
                  atomo__shape_text(y), atomo__shape_text(x));
    if (gx) ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, x->ndim, x->shape, "batch_norm backward: gx"));
    made.in_place = gresidual && *gresidual == gy;
    if (gresidual)
        ATOMO_TRY(atomo__make(&made, gresidual, ATOMO_F32, x->ndim, x->shape, "batch_norm backward: gresidual"));
    made.in_place = false;
    ATOMO_TRY(atomo__make(&made, ggamma, ATOMO_F32, 1, gamma->shape, "batch_norm backward: gweight"));
    ATOMO_TRY(atomo__make(&made, gbeta, ATOMO_F32, 1, gamma->shape, "batch_norm backward: gbias"));
    job j = {.l = layout_of(x), .gy = atomo__f32(gy), .gx = gx ? atomo__f32(*gx) : NULL};
    if (x != packed_x)
        j.x16 = packed_x->data;
    else
        j.x = atomo__f32(x);
    j.mask = by_y ? MASK_Y : relu ? MASK_X : MASK_NONE;
    j.big = atomo__numel(x) > ATOMO_PARALLEL_MIN;
    j.training = training != 0;
    if (by_y) {
        if (y != packed_y)
            j.y16 = packed_y->data;
        else
            j.y = atomo__f32(y);
        j.g = atomo__f32(*gresidual);
    } else if (gresidual && *gresidual != gy) {
        memcpy((*gresidual)->data, gy->data, (size_t)gy->numel * sizeof(float));
    }
    return atomo__made(&made, run(&j, gamma, beta, mean, invstd, atomo__f32(*ggamma), atomo__f32(*gbeta)));
}
