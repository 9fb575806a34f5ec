/* iterator.h - the loop of all strided elementwise kernels: broadcasts up to three operands to a common shape, merges
 * neighbouring dimensions where the strides allow it, and returns rows (the innermost dimension). Private. */
#ifndef ATOMO_ITERATOR_H
#define ATOMO_ITERATOR_H

#include "tensor/tensor.h"

typedef struct atomo__iterator {
    int operands, ndim;
    int64_t shape[ATOMO_MAX_DIM], stride[3][ATOMO_MAX_DIM]; /* strides in elements, 0 where broadcast */
    int64_t row, rows; /* elements of a row, number of rows (0: the shape has no elements) */
} atomo__iterator;

/* shape [*ndim] = the shape that a and b broadcast to by NumPy's rule; ESHAPE names both shapes. */
int atomo__broadcast_shape(const atomo_tensor *a, const atomo_tensor *b, const char *what, int *ndim, double *shape);
/* Sets up *it over t[0..operands-1], each broadcast to shape [ndim], to which the caller has checked that they fit. */
void atomo__iterator_init(atomo__iterator *it, int ndim, const double *shape, int operands,
                          const atomo_tensor *const *t);
/* offset[k] = offset of row r in operand k, in elements. */
void atomo__iterator_row(const atomo__iterator *it, int64_t r, int64_t offset[3]);

/* A piece is what one thread works on at a time: a row, or a part of the row if there is only one. */
typedef struct atomo_piece {
    int64_t at[3], out, n; /* its offset in each operand, its offset in a contiguous result, its length; in elements */
} atomo_piece;
int64_t atomo__pieces(const atomo__iterator *it); /* number of pieces */
atomo_piece atomo__piece(const atomo__iterator *it, int64_t i);
static inline bool atomo__iterator_is_wide(const atomo__iterator *it) /* enough elements for several threads */
{
    return it->rows * it->row > ATOMO_PARALLEL_MIN;
}

/* The f32 row kernels of elementwise.c: o[i] = op(a[i sa], b[i sb]) for i < n. o is contiguous; it may be an operand of
 * stride 1, else it overlaps none. */
typedef void atomo__binary_row(const float *a, int64_t sa, const float *b, int64_t sb, float *o, int64_t n);
typedef void atomo__unary_row(const float *a, int64_t sa, float *o, int64_t n);
atomo__binary_row *atomo__binary_of(int op);
atomo__unary_row *atomo__unary_of(int op);

#endif
