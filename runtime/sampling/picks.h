/* picks.h - the coarsest quantiser of standard normal numbers: of each block of about K of them only the largest
 * magnitude is sent, as its place and its sign; stage 5 of the path. Private.
 *
 * With q = its sign there, 0 elsewhere, <y, q> has the mean E(K) = E max |y_i| for a block, so V = K / E(K)^2 - 1. A
 * place takes log2 K bits. Entries above a threshold, as many in the mean, would also take bits for how many lie in
 * each block (1.44 per entry): at equal bits picks have 4 to 7 % less V below 0.75 bits an entry.
 */
#ifndef ATOMO_PICKS_H
#define ATOMO_PICKS_H

#include "core/core.h"

/* Of n entries m are picked: block j has the entries j, j + m, j + 2 m, ... Returns its number of entries: floor(n /
 * m), or one more. */
static inline int64_t atomo__block_size(int64_t n, int64_t m, int64_t j)
{
    return n / m + (j < n % m);
}

/* Returns how many of n entries are picked if `share` = 1 / K of them should be; at least one. Operations that are
 * rounded alike on every machine. */
static inline int64_t atomo__picks_of(int64_t n, double share)
{
    const int64_t m = (int64_t)((double)n * share + 0.5);
    return ATOMO_MAX(1, ATOMO_MIN(m, n));
}

/* A place in a block of s entries as a truncated binary code: the first `shorter` places have `bits` bits, the others
 * one more. */
typedef struct atomo__place_code {
    int bits;
    uint32_t shorter;
} atomo__place_code;

static inline atomo__place_code atomo__place_code_of(int64_t s)
{
    const int bits = 63 - __builtin_clzll((uint64_t)s);
    return (atomo__place_code){bits, (uint32_t)(((int64_t)2 << bits) - s)};
}

/* Returns the mean bits of a pick, its sign included, if m of n normal entries are picked. */
double atomo__pick_bits(int64_t n, int64_t m);

/* A size of blocks, K = 1 / share. */
typedef struct atomo__pick_rate {
    double share, bits; /* of entries; bits an entry */
    double loss, gain;  /* V; 1 / E[y q] of an entry */
} atomo__pick_rate;
/* Sizes from 3 to 2^15, so many to the octave: rate 0 has the smallest blocks. */
enum { ATOMO__PICK_SIZES = 64, ATOMO__PICK_RATES = 13 * ATOMO__PICK_SIZES + ATOMO__PICK_SIZES / 2 };
/* rate [ATOMO__PICK_RATES] = all sizes of blocks. */
void atomo__pick_rates(atomo__pick_rate *rate);

#endif
