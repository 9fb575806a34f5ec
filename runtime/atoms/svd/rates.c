/* rates.c - how the factors of spectral atoms are coded at a price, in a random basis; stage 5 of the path.
 *
 * Both factors of an atom are rotated, quantised and scaled (common/rotated_unit.c) independently of each other, so
 * E[what vhat^T] = w v^T, with the relative variance (1 + V_w)(1 + V_v) - 1. The variance plus the price T^2 of its
 * bits is least if V_w' (1 + V_v) = -k T^2 / lambda^2, and the same with w and v exchanged: each factor has the
 * quantiser for entries of mean square lambda^2 (1 + V of the other) / length. Above a certain T / lambda it is better
 * to send the atom with a probability p, by Algorithm 1: then lambda^2 (1 + V_w)(1 + V_v) / p + T^2 p bits is least at
 * the quantisers of least (1 + V_w)(1 + V_v) bits, whatever lambda is. A short factor is not nearly normal after a
 * rotation, so it is rounded stochastically (coding/quantize.c).
 */
#include "atoms/svd/state.h"
#include "atoms/common/rotation.h"
#include "sampling/gaussian.h"
#include "sampling/normal.h"
#include <math.h>

/* Mean bits of an atom's level, coded as the difference to the level before. */
static const double LEVEL_BITS = 3;
/* Bits of the scale of a short factor that is rounded, and of both. */
static const double SHORT_SCALE_BITS = 16, BOTH_SCALE_BITS = 32;
/* Rounds in which both factors' quantisers are adapted to the variance of the other. */
enum { ROUNDS = 3 };

static const double ROOT_2 = 1.4142135623730951, ROOT_HALF = 0.7071067811865476;

int svd_level_of(double square)
{
    int e;
    const double m = frexp(square, &e), quarter = sqrt(ROOT_HALF); /* 2^-1/4 */
    const int level = 2 * e - (m < quarter) - (m < quarter * ROOT_HALF);
    return ATOMO_MAX(-SVD_MOST_LEVEL, ATOMO_MIN(level, SVD_MOST_LEVEL));
}

double svd_square_of(int level)
{
    const int whole = (level - (level & 1)) / 2;
    return ldexp(level & 1 ? ROOT_2 : 1, whole);
}

/* E max y^2 of n standard normal numbers: the integral over t of 2 t P(max |y| > t). */
static double mean_largest_square(int64_t n)
{
    const double step = 1.0 / 64, end = 8;
    double sum = 0;
    for (double t = step / 2; t < end; t += step)
        sum += 2 * t * step * (1 - pow(1 - 2 * atomo__normal_tail(t), (double)n));
    return sum;
}

/* Returns the least bits for which the variance is below most_loss. `largest`: the mean square of the largest entry,
 * over that of all entries. */
static svd_coding rounded(int64_t n, double largest, double most_loss)
{
    svd_coding f = {.quantiser = -1, .bits = SVD_FEWEST_BITS - 1};
    do f.loss = atomo__quant_usual(largest, ++f.bits);
    while (f.bits < SVD_MOST_BITS && f.loss > most_loss);
    f.length = (double)n * f.bits + SHORT_SCALE_BITS;
    return f;
}

/* Returns the coding of a factor of n entries of mean square 1 / n, at a price of `ratio`. */
static svd_coding coding_at(int64_t n, double largest, double ratio)
{
    if (n < SVD_LEAST_ROTATED) {
        const int k = atomo__quantiser_for(ATOMO__MOST_ROTATED, ratio * (double)n);
        return rounded(n, largest, atomo__quantiser_at(k)->loss);
    }
    svd_coding f = {.quantiser = -1};
    for (atomo__rotation_units u = {.left = n}; atomo__rotation_next(&u);) {
        if (f.quantiser < 0) f.quantiser = atomo__quantiser_for(u.size, ratio * (double)n);
        const atomo__quantiser *q = atomo__quantiser_at(f.quantiser);
        f.loss = atomo__quantiser_loss(q, u.size);
        f.length += atomo__quantiser_bits(q, u.size);
    }
    return f;
}

static svd_rate rate_at(const svd_rates *r, const double largest[2], double ratio)
{
    svd_coding v = {.loss = 0}, w = {.loss = 0};
    if (svd_rounds_all(r->l)) {
        v = coding_at(r->l, largest[1], ratio);
        w = (svd_coding){.quantiser = -1, .bits = v.bits, .loss = atomo__quant_usual(largest[0], v.bits)};
        return (svd_rate){.shorter = w,
                          .longer = v,
                          .length = SVD_WIDTH_BITS + BOTH_SCALE_BITS + v.bits * (double)(r->k + r->l),
                          .loss = (1 + v.loss) * (1 + w.loss) - 1};
    }
    for (int i = 0; i < ROUNDS; i++) {
        v = coding_at(r->l, largest[1], ratio / (1 + w.loss));
        w = coding_at(r->k, largest[0], ratio / (1 + v.loss));
    }
    return (svd_rate){
        .shorter = w, .longer = v, .length = LEVEL_BITS + v.length + w.length, .loss = (1 + v.loss) * (1 + w.loss) - 1};
}

/* Returns the index of the largest ratio in the table that is not above `ratio`. All operations are exact, so both
 * sides of a message compute the same index. */
static int number_of(double ratio)
{
    int e;
    if (!(ratio > 0)) return 0;
    if (isinf(ratio)) return SVD_RATIOS - 1;
    const double m = frexp(ratio, &e);
    const int64_t at = (int64_t)(e - 1 - SVD_LOWEST) * SVD_IN_OCTAVE + (int)((2 * m - 1) * SVD_IN_OCTAVE);
    return (int)ATOMO_MAX(0, ATOMO_MIN(at, (int64_t)SVD_RATIOS - 1));
}

const svd_rate *svd_rate_of(const svd_rates *r, double square, double price, double *keep)
{
    const double ratio = price / square;
    const svd_rate *a = &r->at[ATOMO_MIN(number_of(ratio), r->limit)];
    const double p = sqrt((1 + a->loss) / (ratio * a->length));
    *keep = ratio > 0 && p < 1 ? p : 1;
    return a;
}

/* With T = 0 the factors have the finest quantisers. */
static void evaluate(atomo__curve *curve, double T)
{
    const svd_rates *r = (const svd_rates *)curve; /* its first member */
    const double price = T * r->price_unit * (T * r->price_unit);
    double error = 0;
    curve->bits = curve->nonzero = 0;
    for (int i = 0; i < SVD_LEVELS; i++) {
        if (r->atoms[i] == 0) continue;
        double keep;
        const svd_rate *a = svd_rate_of(r, svd_square_of(r->top - i), price, &keep);
        curve->bits += r->atoms[i] * keep * a->length;
        curve->nonzero += r->atoms[i] * keep;
        error += r->square[i] * ((1 + a->loss) / keep - 1);
    }
    curve->error = error * r->error_unit;
}

void svd_rates_start(svd_rates *r, int64_t k, int64_t l)
{
    double least = INFINITY;
    const double largest[2] = {mean_largest_square(k), mean_largest_square(l)};
    r->k = k;
    r->l = l;
    for (int i = 0; i < SVD_RATIOS; i++) {
        const int part = i % SVD_IN_OCTAVE, octave = SVD_LOWEST + i / SVD_IN_OCTAVE;
        r->at[i] = rate_at(r, largest, ldexp(1 + (part + 0.5) / SVD_IN_OCTAVE, octave));
        const double cost = (1 + r->at[i].loss) * r->at[i].length;
        if (!(cost < least)) continue;
        least = cost;
        r->limit = i;
    }
}

void svd_rates_measure(svd_state *s, double weight)
{
    svd_rates *r = &s->rates;
    double most = 0;
    for (int64_t i = 0; i < s->k; i++) most = ATOMO_MAX(most, s->lambda[i]);
    r->curve = (atomo__curve){.at = -1, .evaluate = evaluate};
    r->price_unit = ldexp(1 / weight, s->exponent);
    r->error_unit = ldexp(1, -2 * s->exponent);
    memset(r->atoms, 0, sizeof r->atoms);
    memset(r->square, 0, sizeof r->square);
    if (!(most > 0)) return;
    r->top = svd_level_of(ldexp(most * most, 2 * s->exponent));
    for (int64_t i = 0; i < s->k; i++) {
        const double square = ldexp(s->lambda[i] * s->lambda[i], 2 * s->exponent);
        if (!(square > 0)) continue;
        const int below = ATOMO_MIN(r->top - svd_level_of(square), SVD_LEVELS - 1);
        r->atoms[below]++;
        r->square[below] += square;
    }
}
