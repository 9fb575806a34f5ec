/* fill.c - fills tensors with random numbers or given bytes. Each random fill (atomo.rand, randn) has its own stream,
 * keyed by the seed and the number of fills since atomo_manual_seed. */
#include "tensor/tensor.h"
#include <math.h>
#include <string.h>

static atomo_stream next_stream(void)
{
    uint64_t s = (uint64_t)atomo_initial_seed(), d = atomo__next_draw();
    return (atomo_stream){{(uint32_t)s, (uint32_t)(s >> 32)}, ATOMO_RNG_USER, 0, (uint32_t)(d >> 32), (uint32_t)d};
}

int atomo_fill_uniform(atomo_tensor *t, double lo, double hi)
{
    ATOMO_MAKING(made, NULL);
    ATOMO_TRY(atomo__make(&made, &t, ATOMO_F32, t->ndim, t->shape, "rand"));
    atomo_stream s = next_stream();
    float *v = atomo__f32(t);
    atomo_random_uniform(&s, 0, t->numel, v);
    const float scale = (float)(hi - lo), from = (float)lo;
    for (int64_t i = 0; i < atomo__numel(t); i++) v[i] = from + scale * v[i];
    return atomo__made(&made, ATOMO_OK);
}

/* Box-Muller on pairs of uniforms: elements 2k and 2k+1 come from words 2k and 2k+1 of the stream. */
int atomo_fill_normal(atomo_tensor *t, double mean, double std)
{
    ATOMO_MAKING(made, NULL);
    ATOMO_TRY(atomo__make(&made, &t, ATOMO_F32, t->ndim, t->shape, "randn"));
    atomo_stream s = next_stream();
    float *v = atomo__f32(t);
    int64_t n = atomo__numel(t);
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t w[4];
        atomo_random_block(&s, (uint32_t)(i >> 2), w);
        for (int k = 0; k < 4; k += 2) {
            double u = ((double)w[k] + 0.5) * 0x1p-32, a = 6.283185307179586 * ((double)w[k + 1] * 0x1p-32);
            double r = sqrt(-2.0 * log(u));
            if (i + k < n) v[i + k] = (float)(mean + std * r * cos(a));
            if (i + k + 1 < n) v[i + k + 1] = (float)(mean + std * r * sin(a));
        }
    }
    return atomo__made(&made, ATOMO_OK);
}

int atomo_fill_bytes(atomo_tensor *t, const void *bytes, double n)
{
    ATOMO_REQUIRE(atomo_tensor_is_contiguous(t), ATOMO_ESHAPE, "fill_bytes: tensor is not contiguous");
    double want = t->numel * (double)atomo__dtype_size(t->dtype);
    ATOMO_REQUIRE(n == want, ATOMO_EARG, "fill_bytes: %.0f bytes for a tensor of %.0f", n, want);
    if (n > 0) memcpy(t->data, bytes, (size_t)n);
    return ATOMO_OK;
}
