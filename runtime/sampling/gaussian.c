/* gaussian.c - quantisers of a standard normal number (gaussian.h); stage 5 of the path.
 *
 * Below 0.87 bits per entry the largest of each block of entries is sent (picks.h). Up to 1.2 bits a sign above a
 * threshold is best: V = p / (2 phi(t))^2 - 1 with p = 2 (1 - Phi(t)), R = H(p) + p. Above, there are cells of one
 * width around a wider one at 0 (an entropy-coded scalar quantiser with a dead zone). Near the optimum the width is 2.8
 * T / sigma, and the dead zone ends at 0.46 to 0.5 of it. Both were found by a search over all pairs, and are within
 * 0.3 % of the least sigma^2 V + T^2 R. Above 4.5 bits cells are divided into 2, 4, 8, ... equal parts. No code has V
 * below 1 / (4^R - 1) (docs/compressors.md). Sender and receiver compute these tables by exp, erfc and log2 of their C
 * library; shares are rounded to 2^-12.
 */
#include "sampling/gaussian.h"
#include "sampling/normal.h"
#include "sampling/picks.h"
#include <math.h>
#include <pthread.h>

/* log2 of T / sigma: from PICK_ABOVE on entries are picked, from SIGN_ABOVE on the quantiser is a sign, below it
 * levels; below CUT_BELOW their cells are cut into parts. */
static const double PICK_ABOVE = 0.25, SIGN_ABOVE = -0.25, CUT_BELOW = -4.25;
enum { TABLES = 4 * ATOMO__OCTAVE };
/* The most sizes of blocks from one quantiser to the next. */
enum { MOST_SIZES = 2 };
/* The width of a cell over T / sigma. Half the width of the dead zone, in cell widths: at SIGN_ABOVE, and from an
 * octave below it on. */
static const double WIDTH = 2.8, ZONE_COARSE = 0.46, ZONE_FINE = 0.5;
/* The last cell ends at infinity; it begins about this many sigma from 0. Quantisers with cut cells, whose errors are
 * smaller, need more. */
static const double LAST_LEVEL = 4.2, LAST_CUT_LEVEL = 6;
/* The least expected number of nonzero entries of a class that is always sent. Where the price asks for fewer, the
 * class is sent with a probability. */
static const double LEAST_SENT = 8;
/* Limits of the mantissa bits of a scale. */
enum { LEAST_SCALE_BITS = 2, MOST_SCALE_BITS = 16 };
/* Mean bits of a scale's exponent, and of the flag that a class was sent. */
static const double EXPONENT_BITS = 2.5, PRESENCE_BITS = 1;
/* Bits of a unit besides those of its entries (atoms/common/rotated_unit.c): signs have their number, which takes
 * COUNT_BITS and log2 of the root of its mean; levels have the entropy coder's final state. */
static const double COUNT_BITS = 2.5, STATE_BITS = 16;

static atomo__levels table[TABLES];
static atomo__quantiser quantisers[ATOMO__QUANTISERS];
static double octave[ATOMO__OCTAVE / 2 + 1]; /* 2^(i / 32): of a squared ratio */

/* Returns the bits per entry of a Rice code of the gaps, and of the signs, if a fraction p of the entries is sent. */
static double sign_bits(double p)
{
    const double mean = (1 - p) / p;
    double least = INFINITY;
    for (int k = 0; k < 24; k++) {
        const double r = exp(ldexp(log1p(-p), k));
        least = ATOMO_MIN(least, 1 + k + r / (1 - r));
        if (ldexp(1, k) > 2 * mean) break;
    }
    return p * (1 + least);
}

/* Returns the threshold of least V + 4^x R, where R is the entropy, which is smooth in x, by golden-section search. */
static double best_threshold(double x)
{
    const double ratio = (sqrt(5) - 1) / 2, price = exp2(2 * x);
    double low = 0.6, high = 5, cost[2], at[2];
    for (int i = 0; i < 40; i++) {
        at[0] = high - ratio * (high - low);
        at[1] = low + ratio * (high - low);
        for (int j = 0; j < 2; j++) {
            const double p = 2 * atomo__normal_tail(at[j]), f = 2 * atomo__normal_density(at[j]);
            cost[j] = p / (f * f) - price * ((p * log2(p) + (1 - p) * log2(1 - p)) - p);
        }
        if (cost[0] < cost[1])
            high = at[1];
        else
            low = at[0];
    }
    return (low + high) / 2;
}

static atomo__quantiser make_sign(double x)
{
    const double t = best_threshold(x), p = 2 * atomo__normal_tail(t), along = 2 * atomo__normal_density(t);
    return (atomo__quantiser){
        .bits = sign_bits(p), .loss = p / (along * along) - 1, .nonzero = p, .gain = 1 / along, .threshold = t};
}

/* Returns the rate of least V + 4^x R among rate *from, which becomes its number, and the next ones. These are few, so
 * that bits have no gap where picks begin: there blocks of 4.6 are the best, but signs above a threshold end with the
 * bits of blocks of 3. */
static atomo__quantiser make_picks(double x, const atomo__pick_rate *rate, int *from)
{
    const double price = exp2(2 * x);
    int k = *from;
    for (int i = 0; i < MOST_SIZES && k + 1 < ATOMO__PICK_RATES; i++) {
        const atomo__pick_rate *a = &rate[k], *b = &rate[k + 1];
        if (b->loss - a->loss < price * (a->bits - b->bits)) k++;
    }
    *from = k;
    return (atomo__quantiser){
        .bits = rate[k].bits, .loss = rate[k].loss, .nonzero = rate[k].share, .gain = rate[k].gain, .picks = true};
}

/* Sets the shares: p in units of 2^-12, at least 1. The first is what remains, so that their sum is 2^12. */
static void make_shares(atomo__levels *l, const double *p)
{
    int left = 1 << ATOMO__SHARES_BITS;
    for (int i = l->count - 1; i > 0; i--) {
        l->share[i] = (uint16_t)ATOMO_MAX(1, (int)(ldexp(p[i], ATOMO__SHARES_BITS) + 0.5));
        left -= l->share[i];
    }
    l->share[0] = (uint16_t)left;
}

static atomo__quantiser make_levels(double x, atomo__levels *l)
{
    const double zone = ZONE_FINE + (ZONE_COARSE - ZONE_FINE) * ATOMO_MAX(0, x - SIGN_ABOVE + 1);
    const double width = WIDTH * exp2(x), threshold = zone * width;
    const double last = x < CUT_BELOW + 1 ? LAST_CUT_LEVEL : LAST_LEVEL;
    double p[ATOMO__LEVELS], along = 0, bits = 0;
    p[0] = 1 - 2 * atomo__normal_tail(threshold);
    l->value[0] = 0;
    l->count = 1;
    for (double a = threshold; l->count + 2 <= ATOMO__LEVELS; a += width) {
        const bool ends = a + width > last || l->count + 4 > ATOMO__LEVELS;
        const double share = atomo__normal_tail(a) - (ends ? 0 : atomo__normal_tail(a + width));
        const double mean = (atomo__normal_density(a) - (ends ? 0 : atomo__normal_density(a + width))) / share;
        for (int sign = 0; sign < 2; sign++) {
            p[l->count] = share;
            l->value[l->count++] = (float)(sign ? -mean : mean);
        }
        along += 2 * share * mean * mean;
        if (ends) break;
    }
    make_shares(l, p);
    for (int i = 0; i < l->count; i++) bits += p[i] * (ATOMO__SHARES_BITS - log2((double)l->share[i]));
    return (atomo__quantiser){.bits = bits,
                              .loss = 1 / along - 1,
                              .nonzero = 1 - p[0],
                              .gain = 1 / along,
                              .threshold = threshold,
                              .width = width,
                              .levels = l};
}

/* Returns the quantiser q with every cell cut into 2^octaves parts. */
static atomo__quantiser cut(atomo__quantiser q, int octaves)
{
    const double width = ldexp(q.width, -octaves);
    q.bits += octaves;
    q.loss = width * width / 12;
    q.nonzero = 1;
    q.gain = 1;
    q.fine = octaves;
    q.width = width;
    return q;
}

static void make_all(void)
{
    for (int k = 0; k < TABLES; k++)
        quantisers[(int)((CUT_BELOW - ATOMO__FINEST) * ATOMO__OCTAVE) + k] =
            make_levels(CUT_BELOW + (double)k / ATOMO__OCTAVE, &table[k]);
    atomo__pick_rate rate[ATOMO__PICK_RATES];
    atomo__pick_rates(rate);
    int picks = 0;
    for (int k = (int)((PICK_ABOVE - ATOMO__FINEST) * ATOMO__OCTAVE); k < ATOMO__QUANTISERS; k++)
        quantisers[k] = make_picks(ATOMO__FINEST + (double)k / ATOMO__OCTAVE, rate, &picks);
    for (int k = ATOMO__QUANTISERS - 1; k >= 0; k--) {
        const double x = ATOMO__FINEST + (double)k / ATOMO__OCTAVE;
        const int octaves = (int)ceil(CUT_BELOW - x);
        atomo__quantiser *q = &quantisers[k];
        if (x >= SIGN_ABOVE && x < PICK_ABOVE) *q = make_sign(x);
        if (x < CUT_BELOW) *q = cut(quantisers[k + octaves * ATOMO__OCTAVE], octaves);
        q->scale_bits = ATOMO_MAX(LEAST_SCALE_BITS, ATOMO_MIN(MOST_SCALE_BITS, (int)ceil(log2(4 / sqrt(q->loss)))));
    }
    for (int i = 0; i <= ATOMO__OCTAVE / 2; i++) octave[i] = exp2(2.0 * i / ATOMO__OCTAVE);
}

const atomo__quantiser *atomo__quantiser_at(int k)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_all);
    return &quantisers[k];
}

/* Returns the number of the quantiser for T^2 / sigma^2 = ratio. Sender and receiver compute it by operations that are
 * exact or rounded alike on every machine. */
static int number_of(double ratio)
{
    int exponent, low = 0, high = ATOMO__OCTAVE / 2;
    if (!(ratio > 0)) return 0;
    if (isinf(ratio)) return ATOMO__QUANTISERS - 1;
    const double mantissa = 2 * frexp(ratio, &exponent); /* 1 to 2 */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (mantissa >= octave[middle])
            low = middle;
        else
            high = middle;
    }
    const int64_t k = (int64_t)(exponent - 1) * (ATOMO__OCTAVE / 2) + low - (int64_t)ATOMO__FINEST * ATOMO__OCTAVE;
    return (int)ATOMO_MAX(0, ATOMO_MIN(k, ATOMO__QUANTISERS - 1));
}

/* Returns the number of the coarsest quantiser that sends LEAST_SENT out of n entries in the mean. */
static int coarsest_of(int64_t n)
{
    int low = 0, high = ATOMO__QUANTISERS; /* coarser quantisers send fewer entries */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if ((double)n * quantisers[middle].nonzero >= LEAST_SENT)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Returns log2 of the root of x, in halves: half the binary exponent. */
static double half_log2(double x)
{
    int e;
    frexp(x, &e);
    return 0.5 * e;
}

/* Returns how many of n entries are sent: picks are a whole number. */
static double sent_of(const atomo__quantiser *q, int64_t n)
{
    return q->picks ? (double)atomo__picks_of(n, q->nonzero) : (double)n * q->nonzero;
}

double atomo__quantiser_bits(const atomo__quantiser *q, int64_t n)
{
    const double entries = (double)n, scale = q->scale_bits + EXPONENT_BITS;
    if (q->levels) return entries * q->bits + scale + STATE_BITS;
    if (!q->picks) return entries * q->bits + scale + COUNT_BITS + half_log2(entries * q->nonzero);
    const int64_t m = atomo__picks_of(n, q->nonzero);
    return (double)m * atomo__pick_bits(n, m) + scale;
}

double atomo__quantiser_loss(const atomo__quantiser *q, int64_t n)
{
    if (!q->picks) return q->loss;
    return (1 + q->loss) * (double)n * q->nonzero / sent_of(q, n) - 1; /* V + 1 falls as 1 / m */
}

int atomo__quantiser_for(int64_t n, double ratio)
{
    atomo__quantiser_at(0); /* makes the tables */
    return ATOMO_MIN(number_of(ratio), coarsest_of(n));
}

static atomo__rate rate_of(int64_t n, double e, double T, int most)
{
    const atomo__quantiser *all = quantisers;
    const double entries = (double)n, ratio = T * T / e;
    const int wanted = number_of(ratio);
    atomo__rate r = {.quantiser = ATOMO_MIN(wanted, most), .keep = 1};
    const atomo__quantiser *q = &all[r.quantiser];
    r.loss = atomo__quantiser_loss(q, n);
    r.nonzero = sent_of(q, n);
    r.bits = atomo__quantiser_bits(q, n);
    if (wanted <= most) return r;
    const double keep = sqrt((1 + r.loss) * entries / (ratio * r.bits)); /* minimises error + T^2 bits */
    if (!(keep < 1)) return r;
    r.keep = keep;
    r.bits = PRESENCE_BITS + keep * r.bits;
    r.loss = (1 + r.loss) / keep - 1;
    r.nonzero *= keep;
    return r;
}

atomo__rate atomo__rate_at(int64_t n, double e, double T)
{
    atomo__quantiser_at(0); /* makes the tables */
    return rate_of(n, e, T, coarsest_of(n));
}

static void evaluate_classes(atomo__curve *curve, double T)
{
    const atomo__classes *c = (const atomo__classes *)curve; /* its first member */
    curve->bits = curve->error = curve->nonzero = 0;
    for (int i = 0; i < c->count; i++) {
        const double entries = (double)(c->units[i] * c->size[i]);
        const atomo__rate r = T > 0 ? rate_of(c->size[i], c->e[i], T, c->coarsest[i]) : (atomo__rate){0};
        curve->bits += T > 0 ? (double)c->units[i] * r.bits : 32 * entries;
        curve->nonzero += T > 0 ? (double)c->units[i] * r.nonzero : entries;
        curve->error += c->energy[i] * r.loss;
    }
}

void atomo__classes_ready(atomo__classes *c)
{
    atomo__quantiser_at(0);
    for (int i = 0; i < c->count; i++) c->coarsest[i] = coarsest_of(c->size[i]);
    c->curve = (atomo__curve){.at = -1, .evaluate = evaluate_classes};
}

static const double LN_4 = 1.3862943611198906;

/* Returns the R at which energy / (4^R - 1) + price entries R is least. With x = 4^R it satisfies x / (x - 1)^2 = price
 * entries / (energy ln 4).
 */
static double best_bits(double energy, double entries, double price)
{
    const double c = price * entries / (energy * LN_4);
    return log2(1 + (1 + sqrt(1 + 4 * c)) / (2 * c)) / 2;
}

double atomo__classes_bound(const atomo__classes *c, double bits)
{
    double energy = 0, error = 0;
    for (int i = 0; i < c->count; i++) energy += c->energy[i];
    if (!(energy > 0 && bits > 0)) return 0;
    double low = -200, high = 200; /* log2 of the price over energy / bits */
    for (int round = 0; round < 60; round++) {
        const double middle = (low + high) / 2, price = energy / bits * exp2(middle);
        double spent = 0;
        error = 0;
        for (int i = 0; i < c->count; i++) {
            const double entries = (double)(c->units[i] * c->size[i]);
            if (!(c->energy[i] > 0)) continue;
            const double R = best_bits(c->energy[i], entries, price);
            spent += entries * R;
            error += c->energy[i] / expm1(LN_4 * R);
        }
        if (spent > bits)
            low = middle;
        else
            high = middle;
    }
    return error;
}
