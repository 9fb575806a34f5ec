/* moments.c - means and variances, in double, of values whose mean is large compared with their standard deviation.
 *
 * The float nearest to a mean differs from it by up to 2^-25 of the mean, which may be a large part of the standard
 * deviation: the mean of {1e8 + 8, 1e8} is 1e8 + 4, which is not a float. For such values a kernel subtracts the float
 * `mean` first, and then the rest, the mean of x - mean. Forward and backward both compute the rest from x. Other
 * values are normalised with one subtraction. Path: stage 3.
 */
#include "nn/channels.h"
#include <math.h>
#include <string.h>

/* In standard deviations: the largest mean, and the largest error of a mean, for which f32 is enough. With a mean of
 * FAR rounding changes y by at most 2^-15. */
static const double FAR = 1024, OFF = 0x1p-13;

bool atomo__mean_is_far(double mean, double invstd)
{
    return fabs(mean) * invstd > FAR;
}

bool atomo__moments_are_rough(double mean, double invstd, double off)
{
    return atomo__mean_is_far(mean, invstd) || fabs(off) * invstd > OFF;
}

void atomo__moments(const float *x, int64_t rows, int64_t step, int64_t n, double *mean, double *m2)
{
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) sum += (double)x[r * step + i];
    *mean = sum / (double)(rows * n);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) {
            const double d = (double)x[r * step + i] - *mean;
            squares += d * d;
        }
    *m2 = squares;
}

float atomo__mean_rest(const float *x, int64_t rows, int64_t step, int64_t n, float mean, float invstd)
{
    if (!atomo__mean_is_far((double)mean, (double)invstd)) return 0;
    double sum = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) sum += (double)x[r * step + i] - (double)mean;
    return (float)(sum / (double)(rows * n));
}

/* sum[c] += the sum over the rows of (x - from[c])^power; power: 1 or 2. */
static void add_differences(const layout *l, const float *x, const double *from, int power, double *sum)
{
    for (int64_t r = 0; r < l->rows; r++)
        for (int64_t i = 0; i < l->c; i++) {
            const double d = (double)x[r * l->c + i] - from[i];
            sum[i] += power == 2 ? d * d : d;
        }
}

int atomo__channel_moments(const layout *l, const float *x, double eps, double *mean, double *m2)
{
    const double n = (double)l->rows;
    bool any = false;
    for (int64_t i = 0; i < l->c; i++) any |= atomo__mean_is_far(mean[i], 1 / sqrt(m2[i] / n + eps));
    if (!any) return ATOMO_OK;
    void *space;
    ATOMO_TRY(atomo__calloc(&space, (size_t)(2 * l->c) * sizeof(double)));
    double *exact = space, *squares = exact + l->c;
    add_differences(l, x, squares, 1, exact); /* `squares` is still 0, so these are the sums of x */
    for (int64_t i = 0; i < l->c; i++) exact[i] /= n;
    add_differences(l, x, exact, 2, squares);
    for (int64_t i = 0; i < l->c; i++)
        if (atomo__mean_is_far(mean[i], 1 / sqrt(m2[i] / n + eps))) {
            mean[i] = exact[i];
            m2[i] = squares[i];
        }
    atomo__free(space);
    return ATOMO_OK;
}

int atomo__channel_rests(const layout *l, const float *x, const float *mean, const float *invstd, float *rest)
{
    memset(rest, 0, (size_t)l->c * sizeof(float));
    bool any = false;
    for (int64_t i = 0; i < l->c; i++) any |= atomo__mean_is_far((double)mean[i], (double)invstd[i]);
    if (!any) return ATOMO_OK;
    void *space;
    ATOMO_TRY(atomo__calloc(&space, (size_t)(2 * l->c) * sizeof(double)));
    double *from = space, *sum = from + l->c;
    for (int64_t i = 0; i < l->c; i++) from[i] = (double)mean[i];
    add_differences(l, x, from, 1, sum);
    for (int64_t i = 0; i < l->c; i++)
        if (atomo__mean_is_far((double)mean[i], (double)invstd[i])) rest[i] = (float)(sum[i] / (double)l->rows);
    atomo__free(space);
    return ATOMO_OK;
}
