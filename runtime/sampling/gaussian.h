/* gaussian.h - quantisers of a standard normal number, from fine to coarse, and the bits and error of a class of such
 * entries at a price; stage 5 of the path, for atoms in a random basis (atoms/rotated.c). Private.
 *
 * An entry y of a rotated gradient of norm sigma sqrt(n) is sigma times a nearly standard normal number, whatever the
 * gradient was (Vargaftik et al., "DRIVE", NeurIPS 2021; "EDEN", ICML 2022). Sent as q = Q(y / sigma), and scaled so
 * that <g, ghat> = ||g||^2, the message has the relative variance V = E[q^2] / E[y q]^2 - 1 in R bits an entry. One
 * price T^2 of a bit, over all classes of a step, takes the Q of least sigma^2 V + T^2 R: it depends on T / sigma
 * alone.
 */
#ifndef ATOMO_GAUSSIAN_H
#define ATOMO_GAUSSIAN_H

#include "sampling/sampling.h"

enum {
    ATOMO__OCTAVE = 64,   /* quantisers in an octave of T / sigma */
    ATOMO__FINEST = -12,  /* log2 of the least T / sigma, 12 bits an entry, */
    ATOMO__COARSEST = 10, /* and of the largest, 1 entry in 20000 */
    ATOMO__QUANTISERS = (ATOMO__COARSEST - ATOMO__FINEST) * ATOMO__OCTAVE,
    ATOMO__LEVELS = 96,      /* of the finest quantiser that has a table */
    ATOMO__SHARES_BITS = 12, /* shares of levels are multiples of 2^-12 */
};

/* Values that entries take, as a table. Level 0 is around 0; then 1, -1, 2, -2, ... */
typedef struct atomo__levels {
    int count;
    float value[ATOMO__LEVELS];    /* the mean of a standard normal number in the cell */
    uint16_t share[ATOMO__LEVELS]; /* probability, in 2^-12; they sum to 2^12 */
} atomo__levels;

typedef struct atomo__quantiser {
    double bits;                 /* R: of an entry, as it is coded here */
    double loss;                 /* V: relative variance */
    double nonzero;              /* share of the entries that are not 0 */
    double gain;                 /* 1 / E[y q]: what scales q to y's size */
    double threshold;            /* entries below it, in sigma, are 0 */
    double width;                /* of the cells beyond, in sigma; 0: there is one, a sign */
    const atomo__levels *levels; /* NULL: a sign */
    int fine;                    /* bits an entry for its place within its cell, all places alike */
    int scale_bits;              /* mantissa bits of the scale, so that rounding it adds 1 % to V at most */
} atomo__quantiser;

/* Number k, 0 the finest. */
const atomo__quantiser *atomo__quantiser_at(int k);
/* The number of the best one for n entries of mean square 1 that are sent together, at a price of `ratio` = T^2. */
int atomo__quantiser_for(int64_t n, double ratio);
/* Expected bits of n entries, with those of their scale. */
double atomo__quantiser_bits(const atomo__quantiser *q, int64_t n);

/* How `n` entries of mean square e are sent at the price T^2 of a bit: with which quantiser, and, where that would send
 * fewer than a few of them, with which probability at all (then divided by it). */
typedef struct atomo__rate {
    int quantiser;
    double keep;    /* probability that the class is sent, 1: always */
    double bits;    /* expected, with those of its scale and of whether it is there */
    double loss;    /* expected squared error over n e */
    double nonzero; /* expected number of entries that are sent */
} atomo__rate;
atomo__rate atomo__rate_at(int64_t n, double e, double T);

/* Classes of entries of about the same energy, each sent as so many units of `size` entries. */
enum { ATOMO__CLASSES = 64 };
typedef struct atomo__classes {
    atomo__curve curve;
    int count;
    int64_t units[ATOMO__CLASSES], size[ATOMO__CLASSES];
    double e[ATOMO__CLASSES];      /* mean square of an entry, as both sides know it */
    double energy[ATOMO__CLASSES]; /* sum of squares, as it is */
    int coarsest[ATOMO__CLASSES];
} atomo__classes;
/* Sets coarsest and the curve, when the other fields are set: the expected bits, squared error and number of entries
 * sent of all classes. With T = 0 entries are sent as floats. */
void atomo__classes_ready(atomo__classes *c);
/* The least squared error of any unbiased code of so many bits, for normal entries of the classes' energies: 1 / (4^R -
 * 1) times the energy for R bits an entry, with the bits divided among the classes in the best way. */
double atomo__classes_bound(const atomo__classes *c, double bits);

#endif
