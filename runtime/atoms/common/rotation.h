/* rotation.h - random orthonormal maps of a line (rotation.c). Private. */
#ifndef ATOMO_ROTATION_H
#define ATOMO_ROTATION_H

#include "core/core.h"

/* Most entries that are rotated together: the butterflies stay in the second-level cache. Least that are cut off from
 * more. */
enum { ATOMO__MOST_ROTATED = 65536, ATOMO__LEAST_CUT = 4096 };
/* Entries of the next unit, of which `left` are still to come: the largest power of two, so that few are rotated in odd
 * lengths, except for a last one that is short. */
static inline int64_t atomo__rotation_unit(int64_t left)
{
    enum { LEAST_REST = 256 };
    if (left < 2 * ATOMO__LEAST_CUT) return left;
    int64_t n = (int64_t)1 << (63 - __builtin_clzll((uint64_t)ATOMO_MIN(left, (int64_t)ATOMO__MOST_ROTATED)));
    while (n > ATOMO__LEAST_CUT && left > n && left - n < LEAST_REST) n /= 2;
    return n;
}
/* Entries that `n` are rotated as, the others being zero: n rounded up to five significant binary digits, 6 % more at
 * most, and no more where n has no more digits. */
int64_t atomo__rotation_size(int64_t n);
/* Blocks of the stream that a rotation of `size` entries uses. */
uint32_t atomo__rotation_blocks(int64_t size);
/* Iterates over the units of a line of entries, or of several lines one after the other:
 *   for (atomo__rotation_units u = {.left = n}; atomo__rotation_next(&u);) ... */
typedef struct atomo__rotation_units {
    int64_t left;      /* entries of the line that are in no unit yet; the caller sets it for every line */
    int64_t at, count; /* the unit's first entry, counted over all lines; its entries, without padding */
    int64_t size;      /* entries that are rotated: count, and zeros */
    uint32_t block;    /* the first block of the stream for the unit's rotation */
    uint32_t number;   /* of the unit, from 0 */
} atomo__rotation_units;
/* Sets the fields above for the next unit; false at the line's end. */
bool atomo__rotation_next(atomo__rotation_units *u);
/* The Walsh-Hadamard transform of x [n], n a power of two: sqrt(n) times an orthonormal map. */
void atomo__walsh(float *x, int64_t n);
/* x [size] <- by R x, and <- by R^T x; R of the stream's blocks from `first` on. size is a rotation_size;
 * work: room for as many. */
void atomo__rotate(float *x, int64_t size, const atomo_stream *s, uint32_t first, double by, float *work);
void atomo__rotate_back(float *x, int64_t size, const atomo_stream *s, uint32_t first, double by, float *work);

#endif
