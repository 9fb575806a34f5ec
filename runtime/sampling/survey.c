/* survey.c - measures entries above tau in steps above it. Its sums give the length of their codes, and the variance
 * that rounding to whole steps adds; stage 5 of the path. */
#include "sampling/sampling.h"
#include <math.h>

ATOMO_CLONES void atomo__steps_of(const float *x, int64_t at, const uint32_t *kept, int m, double tau, double inverse,
                                  double *j)
{
    for (int i = 0; i < m; i++) j[i] = (fabs((double)x[(kept[i] & ~ATOMO__MINUS) - at]) - tau) * inverse;
}

ATOMO_CLONES static void add_steps(const double *j, int m, atomo__saturated *s)
{
    double logs[8] = {0}, rounding[8] = {0}, most[8] = {0};
    for (int i = 0; i < m; i += 8)
        for (int l = 0; l < ATOMO_MIN(8, m - i); l++) {
            double v = j[i + l], f = v - floor(v);
            logs[l] += (double)atomo__log2f(1 + (float)v);
            rounding[l] += f * (1 - f);
            most[l] = v > most[l] ? v : most[l];
        }
    for (int l = 0; l < 8; l++) {
        s->logs += logs[l];
        s->rounding += rounding[l];
        s->most = ATOMO_MAX(s->most, most[l]);
    }
}

void atomo__survey(const float *x, int64_t at, const uint32_t *kept, int m, atomo__saturated *s)
{
    double j[ATOMO__SURVEY];
    if (m == 0 || s->inverse == 0) return;
    atomo__steps_of(x, at, kept, m, s->tau, s->inverse, j);
    add_steps(j, m, s);
}
