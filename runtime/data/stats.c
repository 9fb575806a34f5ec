/* stats.c - mean and standard deviation of each channel of a set of images, for normalisation. Path: stage 1. */
#include "tensor/tensor.h"
#include <math.h>

int atomo_channel_stats(const atomo_tensor *images, double *mean, double *std)
{
    ATOMO_TRY(atomo__expect(images, ATOMO_U8, -1, "channel_stats: images"));
    ATOMO_REQUIRE(images->ndim >= 1 && images->numel > 0 && images->shape[images->ndim - 1] <= 8, ATOMO_ESHAPE,
                  "channel_stats: images %s, expected 1 to 8 channels last, and not empty", atomo__shape_text(images));
    const int64_t c = atomo__size(images, -1), n = atomo__numel(images) / c;
    const uint8_t *v = images->data;
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
    return ATOMO_OK;
}
