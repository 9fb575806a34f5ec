/* group_norm.c - group normalisation [Wu & He 2018] of [N, ..., C]: the channels of each image are divided into groups,
 * and mean and biased variance are taken over the positions and channels of a group. For each image, positions are
 * summed per channel in f32 (long inner loops), then channels per group in double. The bits do not depend on the number
 * of threads. Path: stage 3. */
#include "nn/nn.h"
#include <math.h>
#include <string.h>

typedef struct dims {
    int64_t n, p, c, groups, per; /* images, positions, channels, groups, channels of a group */
} dims;

ATOMO_CLONES static void add_values(const dims *s, const float *restrict x, float *restrict sum)
{
    for (int64_t p = 0; p < s->p; p++)
        for (int64_t c = 0; c < s->c; c++) sum[c] += x[p * s->c + c];
}

/* squares += (x - mean)^2, and off += x - mean, whose average is the error of the mean. */
ATOMO_CLONES static void add_squares(const dims *s, const float *restrict x, const float *restrict mean,
                                     float *restrict squares, float *restrict off)
{
    for (int64_t p = 0; p < s->p; p++)
        for (int64_t c = 0; c < s->c; c++) {
            const float d = x[p * s->c + c] - mean[c];
            squares[c] += d * d;
            off[c] += d;
        }
}

/* y = (x - mean) scale + shift; mean, scale, shift [c] */
ATOMO_CLONES static void apply(const dims *s, const float *restrict x, const float *restrict mean,
                               const float *restrict scale, const float *restrict shift, float *restrict y)
{
    for (int64_t p = 0; p < s->p; p++)
        for (int64_t c = 0; c < s->c; c++) y[p * s->c + c] = (x[p * s->c + c] - mean[c]) * scale[c] + shift[c];
}

/* ga += gy, gb += gy xhat */
ATOMO_CLONES static void add_products(const dims *s, const float *restrict x, const float *restrict gy,
                                      const float *restrict mean, const float *restrict invstd, float *restrict ga,
                                      float *restrict gb)
{
    for (int64_t p = 0; p < s->p; p++)
        for (int64_t c = 0; c < s->c; c++) {
            const float g = gy[p * s->c + c];
            ga[c] += g;
            gb[c] += g * (x[p * s->c + c] - mean[c]) * invstd[c];
        }
}

/* gx = u gy - v - (x - mean) w; mean, u, v, w [c] */
ATOMO_CLONES static void spread(const dims *s, const float *restrict x, const float *restrict gy,
                                const float *restrict mean, const float *restrict u, const float *restrict v,
                                const float *restrict w, float *restrict gx)
{
    for (int64_t p = 0; p < s->p; p++)
        for (int64_t c = 0; c < s->c; c++)
            gx[p * s->c + c] = gy[p * s->c + c] * u[c] - v[c] - (x[p * s->c + c] - mean[c]) * w[c];
}

/* out[c] = the sum of v over the channel's group, divided by the group's number of values (channels times positions).
 */
static void group_mean(const dims *s, const float *v, float *out)
{
    for (int64_t g = 0; g < s->groups; g++) {
        double sum = 0;
        for (int64_t c = g * s->per; c < (g + 1) * s->per; c++) sum += (double)v[c];
        for (int64_t c = g * s->per; c < (g + 1) * s->per; c++) out[c] = (float)(sum / (double)(s->per * s->p));
    }
}

/* Replaces the variances in invstd by 1 / sqrt(variance + eps). For a group whose squares overflowed f32 (or that has
 * NaN or Inf), or whose mean is far from 0 or too inaccurate (its error is off [c]), both are computed again in
 * double. */
static void invert(const dims *s, double eps, const float *x, const float *off, float *mean, float *invstd)
{
    for (int64_t g = 0; g < s->c; g += s->per) {
        double m, m2 = (double)invstd[g] * (double)(s->p * s->per);
        const double is = 1 / sqrt((double)invstd[g] + eps);
        const bool again = !isfinite(m2) || atomo__moments_are_rough((double)mean[g], is, (double)off[g]);
        if (again) atomo__moments(x + g, s->p, s->c, s->per, &m, &m2);
        for (int64_t c = g; c < g + s->per; c++) {
            if (again) mean[c] = (float)m;
            const double variance = again ? m2 / (double)(s->p * s->per) : (double)invstd[c];
            invstd[c] = (float)(1 / sqrt(variance + eps));
        }
    }
}

/* rest[c] = the rest of the mean of channel c's group (moments.c). */
static void mean_rests(const dims *s, const float *x, const float *mean, const float *invstd, float *rest)
{
    for (int64_t g = 0; g < s->c; g += s->per) {
        const float r = atomo__mean_rest(x + g, s->p, s->c, s->per, mean[g], invstd[g]);
        for (int64_t c = g; c < g + s->per; c++) rest[c] = r;
    }
}

/* Computes y, mean [c] and invstd [c] of one image; work: scratch of 2 c floats. */
static void image_forward(const dims *s, double eps, const float *x, const float *gamma, const float *beta, float *work,
                          float *mean, float *invstd, float *y)
{
    float *sum = work, *off = work + s->c;
    memset(work, 0, (size_t)(2 * s->c) * sizeof(float));
    add_values(s, x, sum);
    group_mean(s, sum, mean);
    memset(sum, 0, (size_t)s->c * sizeof(float));
    add_squares(s, x, mean, sum, off);
    group_mean(s, sum, invstd);
    group_mean(s, off, off);
    invert(s, eps, x, off, mean, invstd);
    float *scale = work, *shift = work + s->c;
    mean_rests(s, x, mean, invstd, shift);
    for (int64_t c = 0; c < s->c; c++) {
        scale[c] = gamma[c] * invstd[c];
        shift[c] = shift[c] != 0 ? beta[c] - shift[c] * scale[c] : beta[c];
    }
    apply(s, x, mean, scale, shift, y);
}

/* Computes the gradients of one image: ga, gb [c] (zeros on entry) of beta and gamma, and gx (may be NULL). work:
 * scratch of 4 c floats. */
static void image_backward(const dims *s, const float *x, const float *gy, const float *gamma, const float *mean,
                           const float *invstd, float *work, float *ga, float *gb, float *gx)
{
    float *u = work, *v = work + s->c, *w = work + 2 * s->c, *rest = work + 3 * s->c;
    add_products(s, x, gy, mean, invstd, ga, gb);
    mean_rests(s, x, mean, invstd, rest);
    for (int64_t c = 0; c < s->c; c++)
        if (rest[c] != 0) gb[c] -= ga[c] * rest[c] * invstd[c];
    if (!gx) return;
    for (int64_t c = 0; c < s->c; c++) {
        v[c] = gamma[c] * ga[c];
        w[c] = gamma[c] * gb[c];
    }
    group_mean(s, v, v);
    group_mean(s, w, w);
    for (int64_t c = 0; c < s->c; c++) {
        u[c] = gamma[c] * invstd[c];
        v[c] *= invstd[c];
        w[c] *= invstd[c] * invstd[c];
        if (rest[c] != 0) v[c] -= rest[c] * w[c];
    }
    spread(s, x, gy, mean, u, v, w, gx);
}

static int check(const char *fn, const atomo_tensor *x, int groups, const atomo_tensor *gamma, const atomo_tensor *beta,
                 dims *s)
{
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "group_norm: input"));
    ATOMO_REQUIRE(x->ndim >= 2, ATOMO_ESHAPE, "%s: input is %s, expected [N, ..., channels]", fn, atomo__shape_text(x));
    *s = (dims){.n = atomo__size(x, 0), .p = 1, .c = atomo__size(x, -1), .groups = groups};
    for (int i = 1; i < x->ndim - 1; i++) s->p *= atomo__size(x, i);
    ATOMO_REQUIRE(groups >= 1 && s->c > 0 && s->c % groups == 0, ATOMO_ESHAPE,
                  "%s: %d groups do not divide the %d channels of input %s", fn, groups, (int)s->c,
                  atomo__shape_text(x));
    ATOMO_REQUIRE(s->p > 0, ATOMO_ESHAPE, "%s: input is %s, there is nothing to normalise", fn, atomo__shape_text(x));
    s->per = s->c / groups;
    const atomo_tensor *const both[2] = {gamma, beta};
    static const char *const names[2] = {"group_norm: weight", "group_norm: bias"};
    for (int i = 0; i < 2; i++) {
        ATOMO_TRY(atomo__expect(both[i], ATOMO_F32, 1, names[i]));
        ATOMO_REQUIRE(atomo__numel(both[i]) == s->c, ATOMO_ESHAPE, "%s is %s, input is %s: expected [%d]", names[i],
                      atomo__shape_text(both[i]), atomo__shape_text(x), (int)s->c);
    }
    return ATOMO_OK;
}

int atomo_group_norm(const atomo_tensor *x, int groups, const atomo_tensor *gamma, const atomo_tensor *beta, double eps,
                     atomo_tensor **mean, atomo_tensor **invstd, atomo_tensor **out)
{
    ATOMO_MAKING(made, x, gamma, beta);
    dims s;
    ATOMO_TRY(check("group_norm", x, groups, gamma, beta, &s));
    const double shape[2] = {(double)s.n, (double)s.c};
    ATOMO_TRY(atomo__make(&made, mean, ATOMO_F32, 2, shape, "group_norm: mean"));
    ATOMO_TRY(atomo__make(&made, invstd, ATOMO_F32, 2, shape, "group_norm: invstd"));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, x->shape, "group_norm"));
    void *space;
    ATOMO_TRY(atomo__alloc(&space, (size_t)(ATOMO_MAX(s.n, 1) * 2 * s.c) * sizeof(float)));
    const int64_t size = s.p * s.c;
    ATOMO_FOR(i, s.n, 1, x->numel > ATOMO_PARALLEL_MIN,
              image_forward(&s, eps, atomo__f32(x) + i * size, atomo__f32(gamma), atomo__f32(beta),
                            (float *)space + i * 2 * s.c, atomo__f32(*mean) + i * s.c, atomo__f32(*invstd) + i * s.c,
                            atomo__f32(*out) + i * size));
    atomo__free(space);
    return atomo__made(&made, ATOMO_OK);
}

int atomo_group_norm_backward(const atomo_tensor *x, int groups, const atomo_tensor *gy, const atomo_tensor *gamma,
                              const atomo_tensor *mean, const atomo_tensor *invstd, atomo_tensor **gx,
                              atomo_tensor **ggamma, atomo_tensor **gbeta)
{
    ATOMO_MAKING(made, x, gy, gamma, mean, invstd);
    dims s;
    ATOMO_TRY(check("group_norm backward", x, groups, gamma, gamma, &s));
    ATOMO_TRY(atomo__expect_gradient(gy, x->ndim, x->shape, "group_norm backward"));
    if (gx) ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, x->ndim, x->shape, "group_norm backward: gx"));
    ATOMO_TRY(atomo__make(&made, ggamma, ATOMO_F32, 1, gamma->shape, "group_norm backward: gweight"));
    ATOMO_TRY(atomo__make(&made, gbeta, ATOMO_F32, 1, gamma->shape, "group_norm backward: gbias"));
    void *space;
    ATOMO_TRY(atomo__calloc(&space, (size_t)(ATOMO_MAX(s.n, 1) * 6 * s.c) * sizeof(float)));
    float *ga = space, *gb = ga + s.n * s.c, *work = gb + s.n * s.c;
    const int64_t size = s.p * s.c;
    ATOMO_FOR(i, s.n, 1, x->numel > ATOMO_PARALLEL_MIN,
              image_backward(&s, atomo__f32(x) + i * size, atomo__f32(gy) + i * size, atomo__f32(gamma),
                             atomo__f32(mean) + i * s.c, atomo__f32(invstd) + i * s.c, work + i * 4 * s.c, ga + i * s.c,
                             gb + i * s.c, gx ? atomo__f32(*gx) + i * size : NULL));
    int rc = atomo__column_sums(gb, s.n, s.c, atomo__f32(*ggamma));
    if (rc == 0) rc = atomo__column_sums(ga, s.n, s.c, atomo__f32(*gbeta));
    atomo__free(space);
    return atomo__made(&made, rc);
}
