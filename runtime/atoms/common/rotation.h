/* rotation.h - random orthonormal maps of a line (rotation.c). Private. */
#ifndef ATOMO_ROTATION_H
#define ATOMO_ROTATION_H

#include "core/core.h"

/* The most entries of a unit, which is rotated as a whole: its butterflies stay in the second-level cache. The least
 * entries of a unit that is followed by another one. */
enum { ATOMO__MOST_ROTATED = 65536, ATOMO__LEAST_CUT = 4096 };
/* Returns the entries of the next unit if `left` are left: a power of two if possible, because other lengths are
 * slower. Units are cut smaller, down to ATOMO__LEAST_CUT, to avoid a rest below LEAST_REST. */
static inline int64_t atomo__rotation_unit(int64_t left)
{
    enum { LEAST_REST = 256 };
    if (left < 2 * ATOMO__LEAST_CUT) return left;
    int64_t n = (int64_t)1 << (63 - __builtin_clzll((uint64_t)ATOMO_MIN(left, (int64_t)ATOMO__MOST_ROTATED)));
    while (n > ATOMO__LEAST_CUT && left > n && left - n < LEAST_REST) n /= 2;
    return n;
}
/* Returns the length to which n entries are padded with zeros for the rotation: n rounded up to five significant binary
 * digits, at most 6 % more. */
int64_t atomo__rotation_size(int64_t n);
/* Returns the number of blocks of the stream that a rotation of `size` entries uses. */
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
/* x [size] = by * R x, and x = by * R^T x, where the stream's blocks from `first` on determine R. size is an
 * atomo__rotation_size; work: scratch [size]. */
void atomo__rotate(float *x, int64_t size, const atomo_stream *s, uint32_t first, double by, float *work);
void atomo__rotate_back(float *x, int64_t size, const atomo_stream *s, uint32_t first, double by, float *work);
/* x = by * R^T v, where v [size] is 1 at the m places of index, -1 at those that are marked by ATOMO__MINUS, else 0.
 * work may be index. */
void atomo__rotate_back_signs(const uint32_t *index, int64_t m, float *x, int64_t size, const atomo_stream *s,
                              uint32_t first, double by, float *work);

#endif
