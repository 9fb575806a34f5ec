/* global_pool.c - the mean over all positions, [N,H,W,C] -> [N,C]. Path: stage 3. */
#include "nn/nn.h"
#include <string.h>

ATOMO_CLONES static void mean_image(int64_t positions, int64_t c, const float *restrict x, float *restrict y)
{
    const float f = 1 / (float)positions;
    memset(y, 0, (size_t)c * sizeof(float));
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < c; i++) y[i] += x[p * c + i];
    for (int64_t i = 0; i < c; i++) y[i] *= f;
}

ATOMO_CLONES static void spread_image(int64_t positions, int64_t c, const float *restrict gy, float *restrict gx)
{
    const float f = 1 / (float)positions;
    for (int64_t i = 0; i < c; i++) gx[i] = gy[i] * f;
    for (int64_t p = 1; p < positions; p++) memcpy(gx + p * c, gx, (size_t)c * sizeof(float));
}

static int check(const char *fn, const atomo_tensor *x, double *out_shape)
{
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, 4, "global_avg_pool: input"));
    ATOMO_REQUIRE(x->shape[1] * x->shape[2] > 0, ATOMO_ESHAPE, "%s: input %s has no positions", fn,
                  atomo__shape_text(x));
    out_shape[0] = x->shape[0];
    out_shape[1] = x->shape[3];
    return ATOMO_OK;
}

int atomo_global_avg_pool(const atomo_tensor *x, atomo_tensor **out)
{
    ATOMO_MAKING(made, x);
    double shape[2];
    ATOMO_TRY(check("global_avg_pool", x, shape));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, 2, shape, "global_avg_pool"));
    const int64_t positions = atomo__size(x, 1) * atomo__size(x, 2), c = atomo__size(x, 3);
    const float *xd = atomo__f32(x);
    float *y = atomo__f32(*out);
    ATOMO_FOR(n, atomo__size(x, 0), 1, x->numel > ATOMO_PARALLEL_MIN,
              mean_image(positions, c, xd + n * positions * c, y + n * c));
    return atomo__made(&made, ATOMO_OK);
}

int atomo_global_avg_pool_backward(const atomo_tensor *x, const atomo_tensor *gy, atomo_tensor **gx)
{
    ATOMO_MAKING(made, gy);
    double shape[2];
    ATOMO_TRY(check("global_avg_pool backward", x, shape));
    ATOMO_TRY(atomo__expect_gradient(gy, 2, shape, "global_avg_pool backward"));
    ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, 4, x->shape, "global_avg_pool backward: gx"));
    const int64_t positions = atomo__size(x, 1) * atomo__size(x, 2), c = atomo__size(x, 3);
    const float *g = atomo__f32(gy);
    float *out = atomo__f32(*gx);
    if (c == 0) return atomo__made(&made, ATOMO_OK);
    ATOMO_FOR(n, atomo__size(x, 0), 1, x->numel > ATOMO_PARALLEL_MIN,
              spread_image(positions, c, g + n * c, out + n * positions * c));
    return atomo__made(&made, ATOMO_OK);
}
