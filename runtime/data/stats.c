/* stats.c - mean and standard deviation of each channel of a set of images, for normalisation. Path: stage 1. */
#include "tensor/tensor.h"
#include <math.h>

static void of_bytes(const uint8_t *v, int64_t n, int64_t c, double *mean, double *std)
{
    uint64_t sum[8] = {0}, squares[8] = {0}; /* integers: exact up to 2^48 pixels */
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++, v++) {
            sum[k] += *v;
            squares[k] += (uint64_t)*v * *v;
        }
    for (int64_t k = 0; k < c; k++) {
        const double m = (double)sum[k] / (double)n, var = (double)squares[k] / (double)n - m * m;
        mean[k] = m / 255;
        std[k] = sqrt(var > 0 ? var : 0) / 255;
    }
}

/* Two passes, in double: values far from 0 lose no digits. */
static void of_floats(const float *v, int64_t n, int64_t c, double *mean, double *std)
{
    double sum[8] = {0};
    for (int64_t i = 0; i < n * c; i++) sum[i % c] += (double)v[i];
    for (int64_t k = 0; k < c; k++) {
        mean[k] = sum[k] / (double)n;
        sum[k] = 0;
    }
    for (int64_t i = 0; i < n * c; i++) {
        const double d = (double)v[i] - mean[i % c];
        sum[i % c] += d * d;
    }
    for (int64_t k = 0; k < c; k++) std[k] = sqrt(sum[k] / (double)n);
}

int atomo_channel_stats(const atomo_tensor *images, double *mean, double *std)
{
    const bool bytes = images && images->dtype == ATOMO_U8;
    ATOMO_TRY(atomo__expect(images, bytes ? ATOMO_U8 : ATOMO_F32, -1, "channel_stats: images"));
    ATOMO_REQUIRE(images->ndim >= 1 && images->numel > 0 && images->shape[images->ndim - 1] <= 8, ATOMO_ESHAPE,
                  "channel_stats: images %s, expected 1 to 8 channels last, and not empty", atomo__shape_text(images));
    const int64_t c = atomo__size(images, -1), n = atomo__numel(images) / c;
    if (bytes)
        of_bytes(images->data, n, c, mean, std);
    else
        of_floats(images->data, n, c, mean, std);
    return ATOMO_OK;
}
