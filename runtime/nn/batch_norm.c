/* batch_norm.c - batch normalisation with residual and ReLU fused, forward [Ioffe & Szegedy 2015].
 *
 *   y = relu(gamma (x - mean) invstd + beta + residual)
 *
 * x is divided into blocks of rows that stay in cache (channels.h). Each block's sums are f32, of differences from the
 * block's mean. Blocks are combined in double, in order [Chan et al. 1983]. So no mean is too large, and the bits do
 * not depend on the number of threads. The forward is bound by memory: it reads x twice and writes y once. The backward
 * is in batch_norm_backward.c. Path: stage 3.
 */
#include "nn/channels.h"
#include <math.h>
#include <omp.h>
#include <string.h>

ATOMO_CLONES static void sum_into(int64_t n, int64_t period, const float *x, float *s)
{
    for (int64_t o = 0; o < n; o += period)
        for (int64_t i = 0, m = ATOMO_MIN(period, n - o); i < m; i++) s[i] += x[o + i];
}

ATOMO_CLONES static void moments_into(int64_t n, int64_t period, int64_t ahead, const float *restrict x,
                                      const float *restrict shift, float *restrict s1, float *restrict s2)
{
    for (int64_t o = 0; o < n; o += period) {
        const int64_t m = ATOMO_MIN(period, n - o);
        atomo__ask(x + o, ahead, m, 0);
        for (int64_t i = 0; i < m; i++) {
            float d = x[o + i] - shift[i];
            s1[i] += d;
            s2[i] += d * d;
        }
    }
}

/* For one block of n floats: out[0..c) = the channels' means, out[c..2c) = their sums of squared differences from the
 * mean. work: scratch of 3 periods. */
static void block_moments(const layout *l, int64_t n, const float *x, float *work, float *out)
{
    float *shift = work, *s1 = work + l->period, *s2 = s1 + l->period;
    const float per_row = (float)l->c / (float)n;
    memset(work, 0, (size_t)(3 * l->period) * sizeof(float));
    sum_into(n, l->period, x, shift);
    fold(l, shift);
    for (int64_t i = 0; i < l->c; i++) shift[i] *= per_row;
    repeat(l, shift);
    moments_into(n, l->period, l->block, x, shift, s1, s2);
    fold(l, s1);
    fold(l, s2);
    for (int64_t i = 0; i < l->c; i++) {
        out[i] = shift[i] + s1[i] * per_row;
        out[l->c + i] = s2[i] - s1[i] * s1[i] * per_row;
    }
}

/* mean[c] and m2[c] = each channel's mean over all rows, and the sum of squared differences from it. */
static int moments(const layout *l, const float *x, double *mean, double *m2)
{
    float *part;
    ATOMO_TRY(new_floats((size_t)(l->blocks * 2 * l->c + omp_get_max_threads() * 3 * l->period), &part));
    float *work = part + l->blocks * 2 * l->c; /* 3 periods per thread */
    ATOMO_FOR(b, l->blocks, 1, l->rows * l->c > ATOMO_PARALLEL_MIN,
              block_moments(l, block_size(l, b), x + b * l->block, work + omp_get_thread_num() * 3 * l->period,
                            part + b * 2 * l->c));
    memset(mean, 0, (size_t)l->c * sizeof(double));
    memset(m2, 0, (size_t)l->c * sizeof(double));
    double seen = 0;
    for (int64_t b = 0; b < l->blocks; b++) {
        double n = (double)(block_size(l, b) / l->c), total = seen + n;
        const float *pm = part + b * 2 * l->c, *pv = pm + l->c;
        for (int64_t i = 0; i < l->c; i++) {
            double d = (double)pm[i] - mean[i];
            mean[i] += d * n / total;
            m2[i] += (double)pv[i] + d * d * seen * n / total;
        }
        seen = total;
    }
    for (int64_t i = 0; i < l->c; i++) /* squares overflowed f32, or x has NaN or Inf: compute this channel in double */
        if (!isfinite(m2[i])) atomo__moments(x + i, l->rows, l->c, 1, &mean[i], &m2[i]);
    atomo__free(part);
    return ATOMO_OK;
}

/* y = (x - mean) scale + beta, plus r if it is not NULL, through ReLU if relu != 0. v: mean, scale and beta, one period
 * each. */
ATOMO_CLONES static void apply(int64_t n, int64_t period, int64_t ahead, const float *restrict v,
                               const float *restrict x, const float *restrict r, int relu, float *restrict y)
{
    const float *restrict mean = v, *restrict scale = v + period, *restrict beta = v + 2 * period;
    for (int64_t o = 0; o < n; o += period) {
        const int64_t m = ATOMO_MIN(period, n - o);
        const float *restrict xo = x + o, *restrict ro = r ? r + o : NULL;
        float *restrict yo = y + o;
        atomo__ask(xo, ahead, m, 0);
        if (ro) atomo__ask(ro, ahead, m, 0);
        atomo__ask(yo, ahead, m, 1);
        if (ro && relu)
            for (int64_t i = 0; i < m; i++) {
                float t = (xo[i] - mean[i]) * scale[i] + beta[i] + ro[i];
                yo[i] = t < 0 ? 0 : t; /* keeps NaN */
            }
        else if (ro)
            for (int64_t i = 0; i < m; i++) yo[i] = (xo[i] - mean[i]) * scale[i] + beta[i] + ro[i];
        else if (relu)
            for (int64_t i = 0; i < m; i++) {
                float t = (xo[i] - mean[i]) * scale[i] + beta[i];
                yo[i] = t < 0 ? 0 : t;
            }
        else
            for (int64_t i = 0; i < m; i++) yo[i] = (xo[i] - mean[i]) * scale[i] + beta[i];
    }
}

static void apply_block(const layout *l, int64_t b, const float *v, const float *x, const float *r, int relu, float *y)
{
    const int64_t at = b * l->block;
    apply(block_size(l, b), l->period, -l->block, v, x + at, r ? r + at : NULL, relu, y + at);
}

/* Goes through the blocks from last to first, because the blocks that the statistics read last are still in cache.
 * rest [c]: the rests of the means (moments.c), or NULL. */
static int apply_all(const layout *l, const atomo_tensor *x, const atomo_tensor *r, const float *mean,
                     const float *gamma, const float *beta, const float *invstd, const float *rest, int relu, float *y)
{
    float *v;
    ATOMO_TRY(new_floats((size_t)(3 * l->period), &v));
    for (int64_t i = 0; i < l->c; i++) {
        v[i] = mean[i];
        v[l->period + i] = gamma[i] * invstd[i];
        v[2 * l->period + i] = rest && rest[i] != 0 ? beta[i] - rest[i] * v[l->period + i] : beta[i];
    }
    for (int k = 0; k < 3; k++) repeat(l, v + k * l->period);
    const float *xd = atomo__f32(x), *rd = r ? atomo__f32(r) : NULL;
    ATOMO_FOR(k, l->blocks, 1, l->rows * l->c > ATOMO_PARALLEL_MIN,
              apply_block(l, l->blocks - 1 - k, v, xd, rd, relu, y));
    atomo__free(v);
    return ATOMO_OK;
}

static int expect_channels(const atomo_tensor *t, const atomo_tensor *x, const char *name)
{
    ATOMO_TRY(atomo__expect_argument(t, ATOMO_F32, 1, "batch_norm", name));
    ATOMO_REQUIRE(t->shape[0] == x->shape[x->ndim - 1], ATOMO_ESHAPE,
                  "batch_norm: %s is %s, input is %s: expected [%.0f]", name, atomo__shape_text(t),
                  atomo__shape_text(x), x->shape[x->ndim - 1]);
    return ATOMO_OK;
}

static int check(const atomo_tensor *x, const atomo_tensor *r, const atomo_tensor *gamma, const atomo_tensor *beta)
{
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "batch_norm: input"));
    ATOMO_REQUIRE(x->ndim >= 2, ATOMO_ESHAPE, "batch_norm: input is %s, expected [..., channels]",
                  atomo__shape_text(x));
    ATOMO_TRY(expect_channels(gamma, x, "weight"));
    ATOMO_TRY(expect_channels(beta, x, "bias"));
    if (!r) return ATOMO_OK;
    ATOMO_TRY(atomo__expect(r, ATOMO_F32, -1, "batch_norm: residual"));
    ATOMO_REQUIRE(atomo__same_shape(x, r), ATOMO_ESHAPE, "batch_norm: residual is %s, input is %s",
                  atomo__shape_text(r), atomo__shape_text(x));
    return ATOMO_OK;
}

static int train(const layout *l, const atomo_tensor *x, double momentum, double eps, atomo_tensor *running_mean,
                 atomo_tensor *running_var, float *mean, float *invstd)
{
    void *space;
    ATOMO_TRY(atomo__alloc(&space, (size_t)(2 * l->c) * sizeof(double)));
    double *m = space, *m2 = m + l->c, n = (double)l->rows;
    int rc = moments(l, atomo__f32(x), m, m2);
    if (rc == 0) rc = atomo__channel_moments(l, atomo__f32(x), eps, m, m2);
    for (int64_t i = 0; rc == 0 && i < l->c; i++) {
        mean[i] = (float)m[i];
        invstd[i] = (float)(1 / sqrt(m2[i] / n + eps));
        if (running_mean) {
            float *rm = atomo__f32(running_mean) + i, *rv = atomo__f32(running_var) + i;
            *rm = (float)((1 - momentum) * (double)*rm + momentum * m[i]);
            *rv = (float)((1 - momentum) * (double)*rv + momentum * m2[i] / (n - 1));
        }
    }
    atomo__free(space);
    return rc;
}

int atomo_batch_norm_train(const atomo_tensor *x, const atomo_tensor *residual, const atomo_tensor *gamma,
                           const atomo_tensor *beta, double momentum, double eps, int relu, atomo_tensor *running_mean,
                           atomo_tensor *running_var, atomo_tensor **mean, atomo_tensor **invstd, atomo_tensor **out)
{
    ATOMO_MAKING(made, x, residual, gamma, beta, running_mean, running_var);
    ATOMO_TRY(check(x, residual, gamma, beta));
    ATOMO_REQUIRE(momentum >= 0 && momentum <= 1, ATOMO_EARG, "batch_norm: momentum is %g, expected 0 to 1", momentum);
    if (running_mean) {
        ATOMO_TRY(expect_channels(running_mean, x, "running_mean"));
        ATOMO_TRY(expect_channels(running_var, x, "running_var"));
        ATOMO_TRY(atomo__apart(running_mean, running_var, "batch_norm: running_mean and running_var"));
        ATOMO_TRY(atomo__apart(running_mean, x, "batch_norm: running_mean and input"));
        ATOMO_TRY(atomo__apart(running_var, x, "batch_norm: running_var and input"));
    }
    layout l = layout_of(x);
    ATOMO_REQUIRE(l.rows > 1, ATOMO_ESHAPE, "batch_norm: input is %s: training needs more than 1 value per channel",
                  atomo__shape_text(x));
    double c = (double)l.c;
    ATOMO_TRY(atomo__make(&made, mean, ATOMO_F32, 1, &c, "batch_norm: mean"));
    ATOMO_TRY(atomo__make(&made, invstd, ATOMO_F32, 1, &c, "batch_norm: invstd"));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, x->shape, "batch_norm"));
    float *m = atomo__f32(*mean), *is = atomo__f32(*invstd), *rest;
    ATOMO_TRY(train(&l, x, momentum, eps, running_mean, running_var, m, is));
    ATOMO_TRY(new_floats((size_t)l.c, &rest));
    int rc = atomo__channel_rests(&l, atomo__f32(x), m, is, rest);
    if (rc == 0)
        rc = apply_all(&l, x, residual, m, atomo__f32(gamma), atomo__f32(beta), is, rest, relu, atomo__f32(*out));
    atomo__free(rest);
    return atomo__made(&made, rc);
}

int atomo_batch_norm_eval(const atomo_tensor *x, const atomo_tensor *residual, const atomo_tensor *gamma,
                          const atomo_tensor *beta, const atomo_tensor *running_mean, const atomo_tensor *running_var,
                          double eps, int relu, atomo_tensor **invstd, atomo_tensor **out)
{
    ATOMO_MAKING(made, x, residual, gamma, beta, running_mean, running_var);
    ATOMO_TRY(check(x, residual, gamma, beta));
    ATOMO_TRY(expect_channels(running_mean, x, "running_mean"));
    ATOMO_TRY(expect_channels(running_var, x, "running_var"));
    layout l = layout_of(x);
    double c = (double)l.c;
    ATOMO_TRY(atomo__make(&made, invstd, ATOMO_F32, 1, &c, "batch_norm: invstd"));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, x->shape, "batch_norm"));
    for (int64_t i = 0; i < l.c; i++)
        atomo__f32(*invstd)[i] = (float)(1 / sqrt((double)atomo__f32(running_var)[i] + eps));
    return atomo__made(&made, apply_all(&l, x, residual, atomo__f32(running_mean), atomo__f32(gamma), atomo__f32(beta),
                                        atomo__f32(*invstd), NULL, relu, atomo__f32(*out)));
}
