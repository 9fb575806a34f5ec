/* moments.c - means and variances of values that lie far from 0 for their spread, where floats do not do: in double.
 *
 * The float next to a mean is up to 2^-25 of it away, which is much of a small spread: of {1e8 + 8, 1e8} the mean
 * 1e8 + 4 is no float at all. There a kernel subtracts the float first, then the rest, which both passes of a layer
 * work out again from x. All else keeps the short way, and its bits. Path: stage 3.
 */
#include "nn/channels.h"
#include <math.h>
#include <string.h>

static const double FAR = 1024, OFF = 0x1p-13; /* in standard deviations: rounding moves y by 2^-15 of one at most */

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

/* sum[c] += the rows' differences from `from`, to the first or second power. */
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
    add_differences(l, x, squares, 1, exact); /* from 0 */
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
