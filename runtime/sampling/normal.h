/* normal.h - density and tail of a standard normal number, for quantisers of rotated entries. Private. */
#ifndef ATOMO_NORMAL_H
#define ATOMO_NORMAL_H

#include <math.h>

static inline double atomo__normal_density(double x)
{
    const double pi = 3.14159265358979323846;
    return exp(-x * x / 2) / sqrt(2 * pi);
}

static inline double atomo__normal_tail(double x) /* P(y > x) */
{
    const double sqrt_half = 0.70710678118654752440;
    return erfc(x * sqrt_half) / 2;
}

#endif
