/* sampling.h - stage 5 of the path: coefficients and a budget -> keep-probabilities (Algorithm 1) -> drawn atoms.
 * Private.
 */
#ifndef ATOMO_SAMPLING_H
#define ATOMO_SAMPLING_H

#include "core/core.h"
#include <string.h>

/* ---- budget (budget.c) ---- */
/* A segment is a group of coefficients with p_i = min(1, |value_i| / (T sqrt(cost_i))). They are doubles, or many
 * coefficients of one price that are given as a histogram of their magnitudes. Or they are atoms of a random basis
 * (gaussian.h), whose bits, kept_cost, are another falling function of T. */
typedef struct atomo__spectrum atomo__spectrum;
/* The cost of atoms whose quantisers depend on T: bits, which fall as T grows, and a squared error, which grows. */
typedef struct atomo__curve {
    double at, bits, error, nonzero; /* the last result, for T = at (-1: none); nonzero: expected number of atoms */
    void (*evaluate)(struct atomo__curve *c, double T); /* sets bits, error and nonzero */
} atomo__curve;
void atomo__curve_at(atomo__curve *c, double T);
typedef struct atomo__segment {
    const atomo__spectrum *spectrum; /* the histogram, or NULL */
    const double *f64;               /* [n] the values, or NULL */
    atomo__curve *curve;             /* what they cost, or NULL */
    const double *cost;              /* [n] prices in bits, only with f64; NULL: all are `unit` */
    double unit;                     /* price of an atom in bits; with cost: a typical price */
    int64_t n;
    /* set by atomo__budget_evaluate for a T */
    double kept, kept_cost; /* atoms with p = 1: number and summed price */
    double kept_sum;        /* their summed |value| */
    double rest_sum;        /* summed |value| sqrt(cost) of the others */
    double expected;        /* sum of p */
} atomo__segment;

/* Algorithm 1 [Wang et al. 2018] with prices: returns the T at which sum cost*p = budget over all segments, 0 if the
 * budget holds every atom. hint: a T to start from, or 0. Uses Newton's method on a concave, piecewise linear function,
 * which is exact after a few passes. Values must be finite, prices > 0. */
double atomo__budget_solve(atomo__segment *seg, int count, double budget, double hint);
/* Sets the segment's results for T. */
void atomo__budget_evaluate(atomo__segment *seg, double T);
/* Returns the bits of a curve that are proportional to 1 / T near T, by its tangent in 1 / T. */
double atomo__budget_elastic(const atomo__segment *seg, double T);
/* Returns the T at which `seg` is expected to send `atoms` atoms; 0 if it has fewer. */
double atomo__budget_atoms(atomo__segment *seg, double atoms);

/* ---- magnitudes of many coefficients (histogram.c) ---- */
/* *sum = sum of |x|, *square = sum of x^2 (both finite if x is), *largest = the largest |x|; in a fixed order. */
void atomo__measure(const float *x, int64_t n, double *sum, double *square, float *largest);
/* The same in parts, bit-identical: `more` for each part of x, in order, of a multiple of ATOMO__MEASURE_LANES entries
 * except the last; then `measured`. m = {0} at first. */
enum { ATOMO__MEASURE_LANES = 16 };
typedef struct {
    double sum[ATOMO__MEASURE_LANES], square[ATOMO__MEASURE_LANES];
    float largest[ATOMO__MEASURE_LANES];
} atomo__measures;
void atomo__measure_more(atomo__measures *m, const float *x, int64_t n);
void atomo__measured(const atomo__measures *m, double *sum, double *square, float *largest);
/* *count, *above = number of entries with |x| >= cut (cut > 0), and the sum of their |x|; *below = the sum of the
 * others. If x has NaN or Inf, above or below is not finite. */
void atomo__split(const float *x, int64_t n, float cut, double *count, double *above, double *below);
/* A histogram of |x|: bins of a sixteenth of an octave, over 32 octaves down from the largest, as running totals from
 * the top. Entries are modelled as uniform within a bin. It is made of all entries, or of ATOMO__PROBES of them: one at
 * a random position in each of as many equal parts of x; up to ATOMO__PROBES - 1 of its last entries are in none.
 * atomo__spectrum_anchor then makes it exact at one cut, and nearly exact close to it. */
enum { ATOMO__BINS = 512, ATOMO__PROBES = 8192 };
struct atomo__spectrum {
    double weight;                /* entries per probe */
    double total, nonzero;        /* sum of |x|, number of x != 0 */
    double off_count, off_sum;    /* exact minus modelled number and sum at the anchor; 0 before */
    uint32_t top;                 /* key of the largest |x|: its bits / 2^19 */
    bool open;                    /* not anchored yet: the refine stage must do it */
    float above[ATOMO__BINS + 1]; /* [b]: probes in the bins before b, without those that are 0 */
    double sum[ATOMO__BINS + 1];  /* [b]: their sum, with every entry at the middle of its bin */
};
void atomo__spectrum_of(atomo__spectrum *s, const float *x, int64_t n, bool all); /* all: of all entries */
/* Corrects the model at `cut` by one exact pass, and sets *square = ||x||^2. ENONFINITE, without a text, if x is not
 * finite. */
int atomo__spectrum_anchor(atomo__spectrum *s, const float *x, int64_t n, float cut, double *square);
/* Returns whether the probes of an anchored histogram stand for other numbers than the entries: then it needs all. */
bool atomo__spectrum_misleads(const atomo__spectrum *s);
/* *count, *sum = the modelled number of entries with |x| >= cut and the sum of their |x|. */
void atomo__spectrum_above(const atomo__spectrum *s, double cut, double *count, double *sum);
/* Returns an upper bound of the largest |x| in the histogram. */
double atomo__spectrum_most(const atomo__spectrum *s);
/* Returns the modelled sum of |x| (tau - |x|) over the entries below tau, which is the variance of keeping each of them
 * with probability |x| / tau. */
double atomo__spectrum_noise(const atomo__spectrum *s, double tau);
/* Returns the modelled mean of log2(1 + max(0, |x| - offset) scale) over the entries with |x| >= cut; whole: the mean
 * of its floor. */
double atomo__spectrum_log2(const atomo__spectrum *s, double cut, double offset, double scale, bool whole);
/* Returns log2(x) for x > 0 from the float's bits, with an error of at most 0.09. */
static inline float atomo__log2f(float x)
{
    int32_t v;
    memcpy(&v, &x, 4);
    return (float)v * 0x1p-23f - 127;
}
/* Returns tau as the f32 with which |x| is compared, both here and when drawing; at least the smallest float above 0.
 */
float atomo__cut_of(double tau);

/* ---- strata of ranks (strata.c) ---- */
enum { ATOMO__STRATA_CHUNK = 1024 };
typedef struct {
    atomo_stream shared; /* the stream that all ranks share */
    int bits;            /* log2 of the number of strata; 0: draws are independent */
    uint8_t place;       /* a r */
} atomo__strata;
/* Returns the strata of the rank of stream s among `ranks` ranks. */
atomo__strata atomo__strata_of(const atomo_stream *s, uint32_t ranks);
/* u [16 ceil(n / 16)] = first bytes of uniforms in this rank's strata, made of the rank's own bytes in u; low, as long
 * = the next bits. x [n]: the entries, of which the sign counts; n <= ATOMO__STRATA_CHUNK. first: number of the first
 * 16 entries, so that all ranks use the same shared numbers for an entry. bits 0: nothing is changed. */
void atomo__strata_bytes(const atomo__strata *t, const float *x, int n, uint32_t first, uint8_t *u, uint8_t *low);
/* The strata of single entries, with the same numbers as strata_bytes; entries in ascending order are the cheapest. */
typedef struct {
    const atomo__strata *strata;
    int64_t chunk; /* number of the chunk of entries whose bytes are in `shared`; -1: none */
    uint32_t shared[ATOMO__STRATA_CHUNK / 4];
} atomo__strata_reader;
/* Returns the stratum of entry i, whose sign counts; 0 if draws are independent. */
uint32_t atomo__stratum_at(atomo__strata_reader *r, uint32_t i, bool minus);
/* If the first byte of u equals that of a probability, u is below it if a further uniform of the rank is below the
 * result. part: the rest of the probability, times 256; low: from strata_bytes. */
static inline float atomo__strata_part(const atomo__strata *t, float part, const uint8_t *low)
{
    return t->bits ? part * (float)(1 << t->bits) - (float)*low : part;
}

/* ---- sampling (draw.c) ---- */
#define ATOMO__MINUS 0x80000000u
typedef struct { /* sums over saturated entries, with j = (|x| - tau) * inverse, their number of steps above tau */
    double tau, inverse;         /* inverse: 1 / (step * tau); 0: no sums are made */
    double logs, most, rounding; /* sum of log2(1 + j), largest j, sum of f (1 - f) where f is the fraction of j */
} atomo__saturated;
typedef struct {
    int64_t drawn, kept; /* number of drawn and of saturated entries in the list */
    double below, noise; /* sums of |x| and of |x| (tau - |x|) over the entries below tau, drawn or not */
    atomo__saturated saturated;
} atomo__drawn;
/* Draws entries: entry i is drawn with probability |x_i|/tau if that is below 1, else it is saturated and always kept
 * (tau 0: all entries that are not 0 are saturated). index [n]: the drawn indices, ascending, at the start, and the
 * saturated ones, ascending, at the end; the top bit is x_i's sign. fixed_count: systematic sampling. step: of
 * saturated entries, in units of tau; 0: d->saturated has no sums. t: strata for independent draws. */
void atomo__sample_entries(const float *x, int64_t n, float tau, const atomo_stream *s, const atomo__strata *t,
                           bool fixed_count, double step, uint32_t *index, atomo__drawn *d);
/* j [m] = number of steps of the kept entries above tau (survey.c); x[0] is entry number `at`. */
void atomo__steps_of(const float *x, int64_t at, const uint32_t *kept, int m, double tau, double inverse, double *j);
/* Adds the entries kept[i], i < m <= ATOMO__SURVEY, to the sums of s (survey.c); x[0] is entry number `at`. */
enum { ATOMO__SURVEY = 1024 };
void atomo__survey(const float *x, int64_t at, const uint32_t *kept, int m, atomo__saturated *s);
/* Returns true with probability p, exact to 2^-64, by block i of the stream. */
bool atomo__sample_one(const atomo_stream *s, uint32_t i, double p);
/* drawn [n] = the same for blocks i [n] with probabilities p [n]; below 0 is never, 1 and above always. */
void atomo__sample_some(const atomo_stream *s, const uint32_t *i, const float *p, int n, uint8_t *drawn);
/* Draws a few atoms one after the other, in ascending order of i: independently, or systematically (fixed_count). */
typedef struct {
    atomo_stream stream;
    uint64_t sum; /* systematic: u plus the sum of p so far, modulo 1, in units of 2^-64 */
    bool fixed_count;
} atomo__draw;
atomo__draw atomo__draw_of(const atomo_stream *s, bool fixed_count);
bool atomo__draw_next(atomo__draw *d, uint32_t i, double p);
uint64_t atomo__draw_start(const atomo_stream *s); /* the stream's u for systematic sampling, in units of 2^-64 */

#endif
