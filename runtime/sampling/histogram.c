/* histogram.c - a histogram of the magnitudes of many coefficients, which tells how many are above tau and what their
 * sum is without another pass; stage 5 of the path.
 *
 * Algorithm 1 needs these two numbers for several values of tau. A histogram of 8192 probes gives tau within about one
 * percent. One exact pass at that tau (the anchor), with the histogram for differences from it, gives tau to about
 * 1e-4. The key of a bin is the bits of |x| without the lower 19 bits of the mantissa, so a bin is a sixteenth of an
 * octave. All sums are made in a fixed order and are bit-identical on every CPU.
 */
#include "sampling/sampling.h"
#include <math.h>

enum { LANES = ATOMO__MEASURE_LANES, BLOCK = 1024 };
enum { KEY_SHIFT = 19, KEY_OF_INFINITY = 0x7F800000 >> KEY_SHIFT }; /* a float without 19 bits of its mantissa */

ATOMO_CLONES void atomo__measure_more(atomo__measures *m, const float *x, int64_t n)
{
    /* written with vector types, because the compiler's own vectorisation mixes in scalars and is four times slower */
    typedef int32_t ints __attribute__((vector_size(32)));
    typedef float floats __attribute__((vector_size(32)));
    typedef double doubles __attribute__((vector_size(64)));
    doubles sums[2], squares[2];
    ints most[2];
    int64_t i = 0;
    memcpy(sums, m->sum, sizeof sums);
    memcpy(squares, m->square, sizeof squares);
    memcpy(most, m->largest, sizeof most);
    for (; i + LANES <= n; i += LANES)
        for (int h = 0; h < 2; h++) {
            ints bits;
            memcpy(&bits, x + i + 8 * h, sizeof bits);
            bits &= INT32_MAX;
            ints more = bits > most[h];
            most[h] = (bits & more) | (most[h] & ~more); /* magnitudes compare as their bits do */
            doubles a = __builtin_convertvector((floats)bits, doubles);
            sums[h] += a;
            squares[h] += a * a;
        }
    memcpy(m->sum, sums, sizeof sums);
    memcpy(m->square, squares, sizeof squares);
    memcpy(m->largest, most, sizeof most);
    for (int l = 0; i < n; i++, l++) {
        float a = fabsf(x[i]);
        m->sum[l] += (double)a;
        m->square[l] += (double)a * (double)a;
        m->largest[l] = a > m->largest[l] ? a : m->largest[l];
    }
}

void atomo__measured(const atomo__measures *m, double *sum, double *square, float *largest)
{
    *sum = *square = 0;
    *largest = 0;
    for (int l = 0; l < LANES; l++) {
        *sum += m->sum[l];
        *square += m->square[l];
        *largest = ATOMO_MAX(*largest, m->largest[l]);
    }
}

void atomo__measure(const float *x, int64_t n, double *sum, double *square, float *largest)
{
    atomo__measures m = {0};
    atomo__measure_more(&m, x, n);
    atomo__measured(&m, sum, square, largest);
}

typedef float floats __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));

typedef struct {
    double above, below, square, count, zeros; /* sums of |x| from the cut on, and below; of x^2; entries from the cut
                                                  on; entries that are 0 */
} sums;

/* Adds groups * LANES entries to t. They are summed in f32 lanes first, with a relative error below 1e-6. */
ATOMO_CLONES static void add_block(const float *x, int groups, float cut, sums *t)
{
    floats up = {0}, down = {0}, square = {0};
    ints count = {0}, zeros = {0};
    for (int i = 0; i < groups; i++) {
        floats a;
        memcpy(&a, x + i * LANES, sizeof a);
        ints size = (ints)a & 0x7FFFFFFF;
        a = (floats)size;
        ints in = a >= cut;
        up += (floats)(size & in);
        down += (floats)(size & ~in);
        square += a * a;
        count -= in;
        zeros -= size == 0;
    }
    for (int l = 0; l < LANES; l++) {
        t->above += (double)up[l];
        t->below += (double)down[l];
        t->square += (double)square[l];
        t->count += count[l];
        t->zeros += zeros[l];
    }
}

static sums sums_of(const float *x, int64_t n, float cut)
{
    sums t = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += BLOCK) add_block(x + i, (int)ATOMO_MIN((int64_t)BLOCK, n - i) / LANES, cut, &t);
    i = n & ~(int64_t)(LANES - 1);
    float last[LANES] = {0};
    if (i < n) {
        memcpy(last, x + i, sizeof(float) * (size_t)(n - i));
        add_block(last, 1, cut, &t);
        t.zeros -= (double)(LANES - (n - i));
    }
    return t;
}

/* A ||x||^2 in f32 below this is not accurate: squares that were subnormal (1e-38) or 0 may matter. */
static const double SQUARES_LOST = 1e-24;

/* Returns whether the sums of n entries and of their squares neither overflowed nor underflowed. */
static bool in_range(const sums *t, int64_t n)
{
    return isfinite(t->above) && isfinite(t->below) && isfinite(t->square) &&
           (t->square > SQUARES_LOST || t->zeros == (double)n);
}

void atomo__split(const float *x, int64_t n, float cut, double *count, double *above, double *below)
{
    sums t = sums_of(x, n, cut);
    if (!in_range(&t, n)) { /* overflow, underflow, NaN or Inf: sum again, in double */
        t = (sums){.count = t.count};
        for (int64_t i = 0; i < n; i++) {
            double a = fabs((double)x[i]);
            t.above += a >= (double)cut ? a : 0;
            t.below += a >= (double)cut ? 0 : a;
        }
    }
    *count = t.count;
    *above = t.above;
    *below = t.below;
}

static uint32_t key_of(float x)
{
    uint32_t v;
    memcpy(&v, &x, 4);
    return (v & 0x7FFFFFFF) >> KEY_SHIFT;
}

static double value_of(uint32_t key) /* the lower end of a bin */
{
    uint32_t v = ATOMO_MIN(key << KEY_SHIFT, 0x7F7FFFFFu);
    float x;
    memcpy(&x, &v, 4);
    return (double)x;
}

/* *low and *high = the lower and upper end of bin b, counted from the top; the last bin starts at 0. */
static void ends_of(const atomo__spectrum *s, uint32_t b, double *low, double *high)
{
    *high = b <= s->top ? value_of(s->top - b + 1) : 0;
    *low = b + 1 < ATOMO__BINS && b <= s->top ? value_of(s->top - b) : 0;
}

/* A double above this may become infinite as an f32. */
static const double LARGEST_TAU = 3.4028234e38;

float atomo__cut_of(double tau)
{
    if (tau > LARGEST_TAU) return INFINITY;
    float cut = (float)tau;
    return cut > 0 ? cut : 0x1p-149f;
}

/* The linear congruential generator of Numerical Recipes [Press et al. 1992], which places probes; the seed is
 * arbitrary.
 */
static const uint32_t LCG_FACTOR = 1664525, LCG_STEP = 1013904223, PROBE_SEED = 12345;

void atomo__spectrum_of(atomo__spectrum *s, const float *x, int64_t n, bool all)
{
    uint16_t key[ATOMO__PROBES];
    uint32_t histogram[4][ATOMO__BINS] = {{0}}, state = PROBE_SEED;
    memset(s, 0, sizeof *s);
    const int64_t stretch = all || n <= ATOMO__PROBES ? 1 : n / ATOMO__PROBES;
    const int64_t probes = stretch == 1 ? n : ATOMO__PROBES;
    const bool noted = probes <= ATOMO__PROBES;
    uint32_t top = 0, nonzero = 0; /* local, so that they stay in registers */
    for (int64_t i = 0; i < probes; i++) {
        int64_t at = i * stretch;
        state = state * LCG_FACTOR + LCG_STEP;
        if (stretch > 1) at += (int64_t)(((uint64_t)state * (uint64_t)stretch) >> 32);
        uint32_t k = key_of(x[at]);
        nonzero += x[at] != 0;
        top = ATOMO_MAX(top, k);
        if (noted) key[i] = (uint16_t)k;
    }
    for (int64_t i = 0; i < probes; i++) {
        uint32_t k = noted ? key[i] : key_of(x[i]);
        histogram[i & 3][ATOMO_MIN(top - k, ATOMO__BINS - 1u)]++; /* four histograms, because neighbours are often in
                                                                     the same bin and would wait for each other */
    }
    s->top = top;
    s->nonzero = nonzero;
    for (uint32_t b = 0; b < ATOMO__BINS; b++) {
        double low, high;
        ends_of(s, b, &low, &high);
        const uint32_t count = histogram[0][b] + histogram[1][b] + histogram[2][b] + histogram[3][b];
        const uint32_t zeros = b == ATOMO_MIN(top, ATOMO__BINS - 1u) ? (uint32_t)probes - nonzero : 0;
        s->above[b + 1] = s->above[b] + (float)(count - zeros);
        s->sum[b + 1] = s->sum[b] + count * (low + high) / 2;
    }
    s->weight = (double)n / (double)probes;
    s->total = s->weight * s->sum[ATOMO__BINS];
    s->nonzero *= s->weight;
}

/* *count and *sum = the modelled number of entries with |x| >= cut and the sum of their |x|, corrected at the anchor.
 */
static void model(const atomo__spectrum *s, double cut, double *count, double *sum)
{
    float at = atomo__cut_of(cut);
    uint32_t key = isinf(at) ? KEY_OF_INFINITY : key_of(at), b = 0;
    double inside = 0, middle = 0, low, high;
    if (key <= s->top) {
        b = ATOMO_MIN(s->top - key, ATOMO__BINS - 1u);
        ends_of(s, b, &low, &high);
        double share = high > low ? ATOMO_MAX(0, ATOMO_MIN(1, (high - cut) / (high - low))) : 0;
        inside = share * (double)(s->above[b + 1] - s->above[b]);
        middle = (high + cut) / 2;
    }
    *count = s->weight * ((double)s->above[b] + inside) + s->off_count;
    *sum = s->weight * (s->sum[b] + inside * middle) + s->off_sum;
}

void atomo__spectrum_above(const atomo__spectrum *s, double cut, double *count, double *sum)
{
    model(s, cut, count, sum);
    *count = ATOMO_MAX(0, ATOMO_MIN(*count, s->nonzero));
    *sum = ATOMO_MAX(0, ATOMO_MIN(*sum, s->total));
}

double atomo__spectrum_most(const atomo__spectrum *s)
{
    return value_of(s->top + 1);
}

double atomo__spectrum_noise(const atomo__spectrum *s, double tau)
{
    double noise = 0;
    for (uint32_t b = 0; b < ATOMO__BINS && b <= s->top; b++) {
        double low, high, inside = (double)(s->above[b + 1] - s->above[b]);
        if (inside == 0) continue;
        ends_of(s, b, &low, &high);
        if (low >= tau) continue;
        if (high > tau) inside *= (tau - low) / (high - low);
        const double x = (low + ATOMO_MIN(high, tau)) / 2;
        noise += inside * x * (tau - x);
    }
    return s->weight * noise;
}

/* Probes give the sum of |x| of gradients within a few percent. If it is off by this fraction, they have missed what
 * matters: a few large entries, or live ones between zeros. */
static const double MISLED = 0.25;

int atomo__spectrum_anchor(atomo__spectrum *s, const float *x, int64_t n, float cut, double *square)
{
    sums t = sums_of(x, n, cut);
    const double zeros = t.zeros;
    *square = t.square;
    if (!in_range(&t, n)) {
        double sum;
        float largest;
        atomo__measure(x, n, &sum, square, &largest);
        if (!isfinite(sum)) return ATOMO_ENONFINITE;
        atomo__split(x, n, cut, &t.count, &t.above, &t.below);
    }
    double count, sum;
    s->off_count = s->off_sum = 0;
    s->total = t.above + t.below;
    s->nonzero = (double)n - zeros;
    model(s, (double)cut, &count, &sum);
    s->off_count = t.count - count;
    s->off_sum = t.above - sum;
    return ATOMO_OK;
}

bool atomo__spectrum_misleads(const atomo__spectrum *s)
{
    const double probed = s->weight * s->sum[ATOMO__BINS];
    return s->weight > 1 && fabs(s->total - probed) > MISLED * ATOMO_MAX(s->total, probed);
}

/* Returns the mean of floor(log2(v)) for v uniform between low >= 1 and high. */
static double mean_floor_log2(double low, double high)
{
    static const double LARGEST = 0x1p1000; /* of infinity there is no whole logarithm; codes are never so long */
    low = ATOMO_MIN(low, LARGEST);
    high = ATOMO_MIN(high, LARGEST);
    int first = ilogb(low), last = ilogb(high);
    double bits = first;
    for (int i = first + 1; i <= last && high > low; i++) bits += (high - ldexp(1, i)) / (high - low);
    return bits;
}

double atomo__spectrum_log2(const atomo__spectrum *s, double cut, double offset, double scale, bool whole)
{
    double bits = 0, count = 0;
    for (uint32_t b = 0; b < ATOMO__BINS; b++) {
        double low, high, inside = (double)(s->above[b + 1] - s->above[b]);
        if (inside == 0) continue;
        ends_of(s, b, &low, &high);
        if (high <= cut) break;
        low = 1 + ATOMO_MAX(0, ATOMO_MAX(low, cut) - offset) * scale;
        high = 1 + ATOMO_MAX(0, high - offset) * scale;
        bits += inside * (whole ? mean_floor_log2(low, high) : (double)atomo__log2f((float)(low + high) / 2));
        count += inside;
    }
    return count > 0 ? bits / count : 0;
}
