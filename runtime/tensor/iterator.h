/* iterator.h - one loop for all strided elementwise kernels: broadcasts up to three operands to a common shape, merges
 * the dimensions that can be merged, and hands out rows (the innermost dimension) with their strides. Private. */
#ifndef ATOMO_ITERATOR_H
#define ATOMO_ITERATOR_H

#include "tensor/tensor.h"

typedef struct atomo__iterator {
    int operands, ndim;
    int64_t shape[ATOMO_MAX_DIM], stride[3][ATOMO_MAX_DIM]; /* strides in elements, 0 where broadcast */
    int64_t row, rows;                                      /* length of a row, number of rows */
} atomo__iterator;

/* The shape that a and b broadcast to (NumPy's rule); ESHAPE names both. */
int atomo__broadcast_shape(const atomo_tensor *a, const atomo_tensor *b, const char *what, int *ndim, double *shape);
/* Iterator over t[0..operands-1], each broadcast to ndim/shape (which they must fit). */
void atomo__iterator_init(atomo__iterator *it, int ndim, const double *shape, int operands,
                          const atomo_tensor *const *t);
/* Element offsets of row r for each operand. */
void atomo__iterator_row(const atomo__iterator *it, int64_t r, int64_t offset[3]);

/* What a thread takes of an iterator at a time: a row or, where all is one row, a stretch of it. */
typedef struct atomo_piece {
    int64_t at[3], out, n; /* elements from each operand's first, from a contiguous result's first; their number */
} atomo_piece;
int64_t atomo__pieces(const atomo__iterator *it); /* their number */
atomo_piece atomo__piece(const atomo__iterator *it, int64_t i);
static inline bool atomo__iterator_is_wide(const atomo__iterator *it) /* enough for several threads */
{
    return it->rows * it->row > ATOMO_PARALLEL_MIN;
}

/* The row kernels of elementwise.c: o[i] = op(a[i sa], b[i sb]); o is contiguous and none of the others. */
typedef void atomo__binary_row(const float *a, int64_t sa, const float *b, int64_t sb, float *o, int64_t n);
typedef void atomo__unary_row(const float *a, int64_t sa, float *o, int64_t n);
atomo__binary_row *atomo__binary_of(int op);
atomo__unary_row *atomo__unary_of(int op);

#endif
