/* relu.c - the backward of ReLU; the forward is atomo_unary(ATOMO_RELU). Path: stage 3. */
#include "nn/nn.h"

ATOMO_CLONES static void mask(int64_t n, const float *restrict y, const float *restrict gy, float *restrict gx)
{
    atomo__ask(y, n, n, 0);
    atomo__ask(gy, n, n, 0);
    atomo__ask(gx, n, n, 1);
    for (int64_t i = 0; i < n; i++) gx[i] = y[i] <= 0 ? 0 : gy[i]; /* NaN passes, as in PyTorch */
}

int atomo_relu_backward(const atomo_tensor *y, const atomo_tensor *gy, atomo_tensor **gx)
{
    ATOMO_MAKING(made, y, gy);
    enum { BLOCK = 1 << 12 };
    ATOMO_TRY(atomo__expect(y, ATOMO_F32, -1, "relu backward: y"));
    ATOMO_TRY(atomo__expect_gradient(gy, y->ndim, y->shape, "relu backward"));
    ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, y->ndim, y->shape, "relu backward: gx"));
    const int64_t n = atomo__numel(y);
    const float *yd = atomo__f32(y), *gd = atomo__f32(gy);
    float *out = atomo__f32(*gx);
    ATOMO_FOR(i, n, BLOCK, n > ATOMO_PARALLEL_MIN, mask(ATOMO_MIN(BLOCK, n - i), yd + i, gd + i, out + i));
    return atomo__made(&made, ATOMO_OK);
}
