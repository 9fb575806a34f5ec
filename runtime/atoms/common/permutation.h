/* permutation.h - random permutations of a line (permutation.c), and vectors of 16 lanes. Private. */
#ifndef ATOMO_PERMUTATION_H
#define ATOMO_PERMUTATION_H

#include "core/core.h"

enum { ATOMO__LANES = 16 };
/* ATOMO__IN_ORDER(v, i, j, ...) is the vector of the lanes i, j, ... of v. */
#ifdef __clang__
#define ATOMO__IN_ORDER(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
typedef int32_t atomo__places __attribute__((vector_size(4 * ATOMO__LANES)));
#define ATOMO__IN_ORDER(v, ...) __builtin_shuffle(v, (atomo__places){__VA_ARGS__})
#endif

typedef struct atomo__permutation {
    uint32_t key[8];
    uint32_t mask; /* groups of a row - 1; their number is a power of two */
    int shift;
} atomo__permutation;

enum { ATOMO__PERMUTATION_BLOCKS = 2 }; /* of the stream */
/* Returns the permutation P of a row of `groups` groups, a power of two, that the stream's blocks from `first` on
 * determine. */
atomo__permutation atomo__permutation_of(const atomo_stream *s, uint32_t first, int64_t groups);
/* to = P from, or P^T from; both [rows, 16 groups]. Each row has another permutation. */
void atomo__permute(const atomo__permutation *p, int rows, bool back, const float *from, float *to);

#endif
