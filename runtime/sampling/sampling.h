/* sampling.h - stage 5 of the path: coefficients and a budget -> keep-probabilities (Algorithm 1) -> drawn atoms.
 * Private.
 */
#ifndef ATOMO_SAMPLING_H
#define ATOMO_SAMPLING_H

#include "core/core.h"
#include <string.h>

/* ---- budget (budget.c) ---- */
/* p_i = min(1, |value_i| / (T sqrt(cost_i))). Coefficients are many with one price (entry-like; a spectrum of their
 * sizes stands for them), or doubles. Or they are classes of a random basis (gaussian.h), whose bits are some falling
 * function of T: then kept_cost + rest_sum / T is its tangent in 1 / T, and expected the entries that are not 0. */
typedef struct atomo__spectrum atomo__spectrum;
typedef struct atomo__segment {
    const atomo__spectrum *spectrum;
    const double *f64; /* one of the three */
    const struct atomo__classes *classes;
    const double *cost; /* [n], only with f64; NULL: unit for all */
    double unit;
    int64_t n;
    /* what the last solution says of this segment */
    double kept, kept_cost; /* atoms with p = 1: count and summed price */
    double kept_sum;        /* their summed |value| */
    double rest_sum;        /* summed |value| sqrt(cost) of the others */
    double expected;        /* sum p */
} atomo__segment;

/* Algorithm 1 [Wang et al. 2018] with prices: the T at which sum cost*p = budget over all segments; 0 when the budget
 * holds every atom. hint: a T to start from, or 0. Newton's method on a concave piecewise linear function: exact, a few
 * passes. Values must be finite, prices > 0. */
double atomo__budget_solve(atomo__segment *seg, int count, double budget, double hint);
/* Fills what a segment says at T. */
void atomo__budget_evaluate(atomo__segment *seg, double T);
/* The T at which `seg` is expected to send so many atoms; 0 where all are fewer. */
double atomo__budget_atoms(atomo__segment *seg, double atoms);

/* ---- sizes of many coefficients (histogram.c) ---- */
/* sum |x|, sum x^2 (both finite when x is) and the largest |x|, fixed order. */
void atomo__measure(const float *x, int64_t n, double *sum, double *square, float *largest);
/* Entries with |x| >= cut (cut > 0): how many, their sum; and the sum of the others. NaN or Inf in x: so is a sum. */
void atomo__split(const float *x, int64_t n, float cut, double *count, double *above, double *below);
/* A histogram of |x| over bins of a sixteenth of an octave, 32 octaves down from the largest, as running totals from
 * the top; each bin counts as evenly filled. Of all entries, or of ATOMO__PROBES of them, each in a random place of its
 * own stretch; `atomo__spectrum_anchor` then makes it exact at one cut, and nearly so around it. */
enum { ATOMO__BINS = 512, ATOMO__PROBES = 8192 };
struct atomo__spectrum {
    double weight;                /* entries that one probe stands for */
    double total, nonzero;        /* sum |x| and count of x != 0 */
    double off_count, off_sum;    /* exact less modelled, at the anchor */
    uint32_t top;                 /* key of the largest: its bits / 2^19 */
    bool open;                    /* of probes, or not anchored yet: the refine stage is still to come */
    float above[ATOMO__BINS + 1]; /* [b]: probes in the bins before b */
    double sum[ATOMO__BINS + 1];  /* [b]: their sum, every entry at the middle of its bin */
};
void atomo__spectrum_of(atomo__spectrum *s, const float *x, int64_t n, bool all);
/* One pass: exact sums; ||x||^2. ENONFINITE (without a text) where x is not finite. */
int atomo__spectrum_anchor(atomo__spectrum *s, const float *x, int64_t n, float cut, double *square);
/* Entries with |x| >= cut and their sum, by the model. */
void atomo__spectrum_above(const atomo__spectrum *s, double cut, double *count, double *sum);
/* sum |x| (tau - |x|) over the entries below tau: the variance of keeping those with |x| / tau. */
double atomo__spectrum_noise(const atomo__spectrum *s, double tau);
/* Mean of log2(1 + max(0, |x| - offset) scale) over those; whole: of its floor. */
double atomo__spectrum_log2(const atomo__spectrum *s, double cut, double offset, double scale, bool whole);
/* log2 to 0.09, by the bits: x > 0. */
static inline float atomo__log2f(float x)
{
    int32_t v;
    memcpy(&v, &x, 4);
    return (float)v * 0x1p-23f - 127;
}
/* The float at which |x| counts as saturated: the sampler compares with the same one. */
float atomo__cut_of(double tau);

/* ---- sampling (draw.c) ---- */
#define ATOMO__MINUS 0x80000000u
/* Draws entries: index i is kept with probability |x_i|/tau below tau (drawn), and always from there on (saturated; tau
 * 0: all that are not 0). index [n]: the drawn, ascending, from its start; the saturated, ascending, at its end; the
 * top bit is x_i's sign. fixed_count: systematic sampling. */
typedef struct { /* of entries from tau on, in steps above it: j = (|x| - tau) inverse; inverse 0: not wanted */
    double tau, inverse;
    double logs, most, rounding; /* sum log2(1 + j), largest j, sum f (1 - f) of its fraction f */
} atomo__saturated;
typedef struct {
    int64_t drawn, kept;
    double below, noise; /* sums of |x| and of |x| (tau - |x|) over the entries below tau, drawn or not */
    atomo__saturated saturated;
} atomo__drawn;
/* step: of the saturated, in units of tau; 0: they are not surveyed. */
void atomo__sample_entries(const float *x, int64_t n, float tau, const atomo_stream *s, bool fixed_count, double step,
                           uint32_t *index, atomo__drawn *d);
/* j [m]: how many steps the kept entries are above tau (survey.c). */
void atomo__steps_of(const float *x, int64_t at, const uint32_t *kept, int m, double tau, double inverse, double *j);
/* Adds x[kept[i] - at], i < m <= ATOMO__SURVEY (survey.c). */
enum { ATOMO__SURVEY = 1024 };
void atomo__survey(const float *x, int64_t at, const uint32_t *kept, int m, atomo__saturated *s);
/* True with probability p, to 2^-64, from element i of the stream. */
bool atomo__sample_one(const atomo_stream *s, uint32_t i, double p);
/* The same of elements i [n] with probabilities p [n] below 1, several at a time. */
void atomo__sample_some(const atomo_stream *s, const uint32_t *i, const float *p, int n, uint8_t *drawn);
/* Draws of a few atoms, one after the other, i ascending: independent, or systematic. */
typedef struct {
    atomo_stream stream;
    uint64_t sum;
    bool fixed_count;
} atomo__draw;
atomo__draw atomo__draw_of(const atomo_stream *s, bool fixed_count);
bool atomo__draw_next(atomo__draw *d, uint32_t i, double p);
uint64_t atomo__draw_start(const atomo_stream *s); /* u of the stream, in 2^-64 */

#endif
