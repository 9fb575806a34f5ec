/* picks.c - bits and variance of picks (picks.h); stage 5 of the path. */
#include "sampling/picks.h"
#include "sampling/normal.h"
#include <math.h>

/* The grid of t for E max |y| = the integral of P(max |y| > t), by Simpson's rule: to 2e-6 of it. */
enum { STEPS = 160 };
static const double LARGEST = 8;

/* Returns the mean bits of a place in a block of s entries. */
static double place_bits(int64_t s)
{
    const atomo__place_code c = atomo__place_code_of(s);
    return c.bits + 1 - (double)c.shorter / (double)s;
}

double atomo__pick_bits(int64_t n, int64_t m)
{
    const int64_t least = n / m, more = n % m;
    return 1 + place_bits(least) + (more ? (double)more / (double)m * (place_bits(least + 1) - place_bits(least)) : 0);
}

/* Returns E max |y_i| of s standard normal numbers. below [STEPS + 1]: log P(|y| <= t) on the grid. */
static double mean_largest(const double *below, int64_t s)
{
    double sum = 0;
    for (int i = 0; i <= STEPS; i++) {
        const double weight = i == 0 || i == STEPS ? 1 : i & 1 ? 4 : 2;
        sum += weight * -expm1((double)s * below[i]);
    }
    return sum * LARGEST / STEPS / 3;
}

void atomo__pick_rates(atomo__pick_rate *rate)
{
    double below[STEPS + 1];
    for (int i = 0; i <= STEPS; i++) below[i] = log1p(-2 * atomo__normal_tail(LARGEST * i / STEPS));
    for (int i = 0; i < ATOMO__PICK_RATES; i++) {
        const int at = i + ATOMO__PICK_SIZES / 2, octave = 1 + at / ATOMO__PICK_SIZES; /* from 3 = 2 (1 + 1 / 2) on */
        const double K = ldexp(1 + (double)(at % ATOMO__PICK_SIZES) / ATOMO__PICK_SIZES, octave);
        const int64_t least = (int64_t)K;
        const double more = K - (double)least; /* the share of blocks with one entry more */
        const double E = (1 - more) * mean_largest(below, least) + more * mean_largest(below, least + 1);
        const double bits = 1 + (1 - more) * place_bits(least) + more * place_bits(least + 1);
        rate[i].share = 1 / K;
        rate[i].gain = K / E;
        rate[i].loss = K / (E * E) - 1;
        rate[i].bits = bits / K;
    }
}
