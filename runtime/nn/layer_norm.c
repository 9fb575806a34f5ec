/* layer_norm.c - layer normalisation over the last dimensions [Ba, Kiros & Hinton 2016]:
 *   y = gamma (x - mean) invstd + beta,  mean and biased variance of each row of d = numel(gamma) values.
 * Gradients of gamma and beta are summed over blocks of rows, which are combined in order, so the bits do not depend on
 * the number of threads. Path: stage 3. */
#include "nn/nn.h"
#include "tensor/vmath.h"
#include <math.h>
#include <string.h>

enum { ROWS = 64 }; /* rows of a block */

/* Returns whether the row's moments must be computed again in double: squares overflowed f32 (or x has NaN or Inf), the
 * mean is far from 0, or the mean is too inaccurate. The last is checked only for long rows and for means of more than
 * MANY standard deviations. y = x - mean. */
static bool is_rough(int64_t d, double eps, float mean, double m2, const float *y)
{
    enum { LONG = 4096, MANY = 16 };
    if (!isfinite(m2)) return true;
    const double m = (double)mean, s = 1 / sqrt(m2 / (double)d + eps);
    if (d <= LONG && fabs(m) * s <= MANY) return false;
    return atomo__moments_are_rough(m, s, atomo__lane_sum(y, d) / (double)d);
}

/* Computes y [d], *mean and *invstd of one row. */
ATOMO_CLONES static void row_forward(int64_t d, double eps, const float *restrict x, const float *restrict gamma,
                                     const float *restrict beta, float *restrict y, float *mean, float *invstd)
{
    float m = (float)(atomo__lane_sum(x, d) / (double)d);
    for (int64_t i = 0; i < d; i++) y[i] = x[i] - m;
    double m2 = atomo__lane_dot(y, y, d);
    if (is_rough(d, eps, m, m2, y)) {
        double exact;
        atomo__moments(x, 1, d, d, &exact, &m2);
        m = (float)exact;
        const float s = (float)(1 / sqrt(m2 / (double)d + eps)), rest = atomo__mean_rest(x, 1, d, d, m, s);
        for (int64_t i = 0; i < d; i++) y[i] = x[i] - m - rest;
    }
    const float s = (float)(1 / sqrt(m2 / (double)d + eps));
    if (gamma)
        for (int64_t i = 0; i < d; i++) y[i] = y[i] * s * gamma[i] + beta[i];
    else
        for (int64_t i = 0; i < d; i++) y[i] *= s;
    *mean = m;
    *invstd = s;
}

/* For one row: gx = s (h - mean(h) - xhat mean(h xhat)) with h = gamma gy (gx may be NULL), and adds to ggamma and
 * gbeta (ggamma may be NULL: neither). s is invstd. work: scratch of 2 d floats. */
ATOMO_CLONES static void row_backward(int64_t d, const float *restrict x, const float *restrict gy,
                                      const float *restrict gamma, float mean, float s, float *restrict work,
                                      float *restrict gx, float *restrict ggamma, float *restrict gbeta)
{
    float *restrict h = work, *restrict xhat = work + d;
    const float rest = atomo__mean_rest(x, 1, d, d, mean, s);
    for (int64_t i = 0; i < d; i++) xhat[i] = (x[i] - mean - rest) * s;
    if (ggamma)
        for (int64_t i = 0; i < d; i++) {
            ggamma[i] += gy[i] * xhat[i];
            gbeta[i] += gy[i];
        }
    if (!gx) return;
    for (int64_t i = 0; i < d; i++) h[i] = gamma ? gamma[i] * gy[i] : gy[i];
    const float a = (float)(atomo__lane_sum(h, d) / (double)d), b = (float)(atomo__lane_dot(h, xhat, d) / (double)d);
    for (int64_t i = 0; i < d; i++) gx[i] = s * (h[i] - a - xhat[i] * b);
}

typedef struct dims {
    int64_t rows, d;
} dims;

static int expect_weights(const atomo_tensor *t, const atomo_tensor *x, int ndim, const char *what)
{
    ATOMO_TRY(atomo__expect(t, ATOMO_F32, ndim, what));
    for (int i = 0; i < ndim; i++)
        ATOMO_REQUIRE(t->shape[i] == x->shape[x->ndim - ndim + i], ATOMO_ESHAPE,
                      "%s is %s, input is %s: its last sizes differ", what, atomo__shape_text(t), atomo__shape_text(x));
    return ATOMO_OK;
}

static int check(const char *fn, const atomo_tensor *x, int ndim, const atomo_tensor *gamma, const atomo_tensor *beta,
                 dims *s)
{
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "layer_norm: input"));
    ATOMO_REQUIRE(ndim >= 1 && x->ndim >= ndim, ATOMO_ESHAPE, "%s: input is %s, the normalised shape has %d dimensions",
                  fn, atomo__shape_text(x), ndim);
    if (gamma) ATOMO_TRY(expect_weights(gamma, x, ndim, "layer_norm: weight"));
    if (beta) ATOMO_TRY(expect_weights(beta, x, ndim, "layer_norm: bias"));
    ATOMO_REQUIRE(!gamma == !beta, ATOMO_EARG, "%s: weight or bias is missing, expected both or neither", fn);
    s->d = 1;
    for (int i = 1; i <= ndim; i++) s->d *= atomo__size(x, -i);
    ATOMO_REQUIRE(s->d > 0, ATOMO_ESHAPE, "%s: input is %s, there is nothing to normalise", fn, atomo__shape_text(x));
    s->rows = atomo__numel(x) / s->d;
    return ATOMO_OK;
}

int atomo_layer_norm(const atomo_tensor *x, int ndim, const atomo_tensor *gamma, const atomo_tensor *beta, double eps,
                     atomo_tensor **mean, atomo_tensor **invstd, atomo_tensor **out)
{
    ATOMO_MAKING(made, x, gamma, beta);
    dims s;
    ATOMO_TRY(check("layer_norm", x, ndim, gamma, beta, &s));
    const double rows = (double)s.rows;
    ATOMO_TRY(atomo__make(&made, mean, ATOMO_F32, 1, &rows, "layer_norm: mean"));
    ATOMO_TRY(atomo__make(&made, invstd, ATOMO_F32, 1, &rows, "layer_norm: invstd"));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, x->shape, "layer_norm"));
    const float *xd = atomo__f32(x), *g = gamma ? atomo__f32(gamma) : NULL, *b = beta ? atomo__f32(beta) : NULL;
    float *y = atomo__f32(*out), *m = atomo__f32(*mean), *is = atomo__f32(*invstd);
    ATOMO_FOR(r, s.rows, 1, x->numel > ATOMO_PARALLEL_MIN,
              row_forward(s.d, eps, xd + r * s.d, g, b, y + r * s.d, m + r, is + r));
    return atomo__made(&made, ATOMO_OK);
}

/* ggamma, gbeta [d] = the sums over part [blocks, 2, d], in order. */
static void join(int64_t blocks, int64_t d, const float *part, float *ggamma, float *gbeta)
{
    for (int64_t i = 0; i < d; i++) {
        double a = 0, b = 0;
        for (int64_t k = 0; k < blocks; k++) {
            a += (double)part[k * 2 * d + i];
            b += (double)part[(k * 2 + 1) * d + i];
        }
        ggamma[i] = (float)a;
        gbeta[i] = (float)b;
    }
}

int atomo_layer_norm_backward(const atomo_tensor *x, int ndim, const atomo_tensor *gy, const atomo_tensor *gamma,
                              const atomo_tensor *mean, const atomo_tensor *invstd, atomo_tensor **gx,
                              atomo_tensor **ggamma, atomo_tensor **gbeta)
{
    ATOMO_MAKING(made, x, gy, gamma, mean, invstd);
    dims s;
    ATOMO_TRY(check("layer_norm backward", x, ndim, gamma, gamma, &s));
    ATOMO_TRY(atomo__expect_gradient(gy, x->ndim, x->shape, "layer_norm backward"));
    if (gx) ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, x->ndim, x->shape, "layer_norm backward: gx"));
    if (ggamma) {
        ATOMO_TRY(atomo__make(&made, ggamma, ATOMO_F32, ndim, gamma->shape, "layer_norm backward: gweight"));
        ATOMO_TRY(atomo__make(&made, gbeta, ATOMO_F32, ndim, gamma->shape, "layer_norm backward: gbias"));
    }
    const int64_t blocks = (s.rows + ROWS - 1) / ROWS, d = s.d;
    void *space;
    ATOMO_TRY(atomo__calloc(&space, (size_t)(ATOMO_MAX(blocks, 1) * 4 * d) * sizeof(float)));
    float *part = space, *work = part + blocks * 2 * d, *gxd = gx ? atomo__f32(*gx) : NULL;
    const float *xd = atomo__f32(x), *gyd = atomo__f32(gy), *g = gamma ? atomo__f32(gamma) : NULL;
#pragma omp parallel for schedule(static) if (x->numel > ATOMO_PARALLEL_MIN)
    for (int64_t k = 0; k < blocks; k++)
        for (int64_t r = k * ROWS; r < ATOMO_MIN(s.rows, (k + 1) * ROWS); r++)
            row_backward(d, xd + r * d, gyd + r * d, g, atomo__f32(mean)[r], atomo__f32(invstd)[r], work + k * 2 * d,
                         gxd ? gxd + r * d : NULL, ggamma ? part + k * 2 * d : NULL, part + (k * 2 + 1) * d);
    if (ggamma) join(blocks, d, part, atomo__f32(*ggamma), atomo__f32(*gbeta));
    atomo__free(space);
    return atomo__made(&made, ATOMO_OK);
}
