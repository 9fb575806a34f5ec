/* gaussian.h - quantisers of a standard normal number, from fine to coarse, and the bits and error of a class of such
 * entries at a price; stage 5 of the path, for atoms in a random basis (atoms/rotated.c). Private.
 *
 * An entry y of a rotated gradient of norm sigma sqrt(n) is sigma times a nearly standard normal number, whatever the
 * gradient was (Vargaftik et al., "DRIVE", NeurIPS 2021; "EDEN", ICML 2022). Sent as q = Q(y / sigma), and scaled so
 * that <g, ghat> = ||g||^2, the message has the relative variance V = E[q^2] / E[y q]^2 - 1 in R bits per entry. At the
 * price T^2 per bit, which all classes of a step share, the best Q minimises sigma^2 V + T^2 R. It depends on T / sigma
 * alone.
 */
#ifndef ATOMO_GAUSSIAN_H
#define ATOMO_GAUSSIAN_H

#include "sampling/sampling.h"

enum {
    ATOMO__OCTAVE = 64,   /* quantisers per octave of T / sigma */
    ATOMO__FINEST = -12,  /* log2 of the smallest T / sigma: 12 bits per entry */
    ATOMO__COARSEST = 10, /* log2 of the largest T / sigma: 1 entry in 20000 is sent */
    ATOMO__QUANTISERS = (ATOMO__COARSEST - ATOMO__FINEST) * ATOMO__OCTAVE,
    ATOMO__LEVELS = 96,      /* the most levels of a table */
    ATOMO__SHARES_BITS = 12, /* shares of levels are multiples of 2^-12 */
};

/* A quantiser's table of values. Level 0 is the cell around 0; those of levels 1, 2, 3, 4, ... are the first cell above
 * 0, the first below, the second above, the second below, ... */
typedef struct atomo__levels {
    int count;
    float value[ATOMO__LEVELS];    /* the mean of a standard normal number in the cell */
    uint16_t share[ATOMO__LEVELS]; /* probability, in 2^-12; they sum to 2^12 */
} atomo__levels;

typedef struct atomo__quantiser {
    double bits;                 /* R: mean bits of an entry, with the code in use */
    double loss;                 /* V: relative variance */
    double nonzero;              /* probability that an entry is not sent as 0 */
    double gain;                 /* 1 / E[y q]: the factor by which q is unbiased */
    double threshold;            /* entries of smaller magnitude, in sigma, become 0; not if they are picked */
    double width;                /* of the other cells, or their parts, in sigma */
    bool picks;                  /* entries are picked (picks.h), 1 of 1 / nonzero */
    const atomo__levels *levels; /* NULL: signs only */
    int fine;                    /* bits of an entry's place among the 2^fine parts of its cell */
    int scale_bits;              /* mantissa bits of the scale: rounding it adds at most 1 % to V */
} atomo__quantiser;

/* Returns quantiser k, 0 <= k < ATOMO__QUANTISERS; 0 is the finest. */
const atomo__quantiser *atomo__quantiser_at(int k);
/* Returns the index of the best quantiser for n entries of mean square 1 that are sent together, at a price of `ratio`
 * = T^2. */
int atomo__quantiser_for(int64_t n, double ratio);
/* Returns the expected bits of n entries, their scale included. */
double atomo__quantiser_bits(const atomo__quantiser *q, int64_t n);
/* Returns V of n entries. */
double atomo__quantiser_loss(const atomo__quantiser *q, int64_t n);

/* Returns how n entries of mean square e are sent at the price T^2 per bit: the quantiser, and the probability `keep`
 * that they are sent, by which the sent values are divided. keep is below 1 only if the quantiser would send very few
 * entries. */
typedef struct atomo__rate {
    int quantiser;
    double keep;    /* probability that the class is sent; 1: always */
    double bits;    /* expected bits, with those of the scale and of the flag that it was sent */
    double loss;    /* expected squared error / (n e) */
    double nonzero; /* expected number of entries that are not sent as 0 */
} atomo__rate;
atomo__rate atomo__rate_at(int64_t n, double e, double T);

/* Classes of entries of about the same energy. Class i is sent as units[i] units of size[i] entries. */
enum { ATOMO__CLASSES = 64 };
typedef struct atomo__classes {
    atomo__curve curve;
    int count;
    int64_t units[ATOMO__CLASSES], size[ATOMO__CLASSES];
    double e[ATOMO__CLASSES];      /* mean square of an entry, as both sides know it */
    double energy[ATOMO__CLASSES]; /* sum of squares of the gradient, which only the sender knows */
    int coarsest[ATOMO__CLASSES];  /* set by atomo__classes_ready */
} atomo__classes;
/* Sets `coarsest` and the curve of expected bits, squared error and number of entries sent of all classes; to be called
 * after the other fields are set. With T = 0 entries are sent as floats. */
void atomo__classes_ready(atomo__classes *c);
/* Returns the least squared error of any unbiased code of `bits` bits, for normal entries of the classes' energies. It
 * is 1 / (4^R - 1) times the energy at R bits per entry, with the bits divided among the classes in the best way. */
double atomo__classes_bound(const atomo__classes *c, double bits);

#endif
