/* nn.h - helpers that several layers use. Private. */
#ifndef ATOMO_NN_H
#define ATOMO_NN_H

#include "linalg/product.h"
#include "tensor/tensor.h"

/* out[c] = the sum over the rows of a [rows, c], such as the gradient of a bias. Blocks of rows are summed in f32 and
 * combined in double, in a fixed order. */
int atomo__column_sums(const float *a, int64_t rows, int64_t c, float *out);
/* to += from, both [n] and apart. */
void atomo__add_to(int64_t n, const float *from, float *to);
/* *mean and *m2 = mean of `rows` rows of n values each, `step` floats apart, and the sum of squared differences from
 * it, computed in double: for values whose squares overflow f32, and for those whose mean is far from 0. */
void atomo__moments(const float *x, int64_t rows, int64_t step, int64_t n, double *mean, double *m2);
/* Returns whether a mean is so far from 0, in standard deviations, that its rounding to f32 shows in x - mean. */
bool atomo__mean_is_far(double mean, double invstd);
/* Returns whether moments must be computed again in double: the mean is far from 0, or wrong by `off`. */
bool atomo__moments_are_rough(double mean, double invstd, double off);
/* Returns the rest of a mean that is far from 0, the mean of x - `mean`, which f32 cannot hold (moments.c); else 0.
 * Rows as above. */
float atomo__mean_rest(const float *x, int64_t rows, int64_t step, int64_t n, float mean, float invstd);
/* Prefetches n floats, `ahead` floats after p (before p if negative), for reading or, with write != 0, for writing.
 * Kernels read memory in short streams, which the hardware prefetcher recognises late. Prefetching a block ahead loads
 * it while the current block is computed. Addresses past the ends of an array are harmless. */
static inline __attribute__((always_inline)) void atomo__ask(const float *p, int64_t ahead, int64_t n, int write)
{
    enum { LINE = 16 };
    const char *at = (const char *)((uintptr_t)p + (uintptr_t)(ahead * (int64_t)sizeof(float)));
    if (write)
        for (int64_t i = 0; i < n; i += LINE) __builtin_prefetch(at + 4 * i, 1, 2);
    else
        for (int64_t i = 0; i < n; i += LINE) __builtin_prefetch(at + 4 * i, 0, 2);
}
/* Checks that gy is contiguous f32 of the given shape, which is that of the forward's result; fn is named in errors. */
int atomo__expect_gradient(const atomo_tensor *gy, int ndim, const double *shape, const char *fn);
/* Returns the number of positions of a sliding window along one dimension, 0 if it does not fit. */
static inline int64_t atomo__window_count(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                                          int64_t dilation)
{
    int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
    return room < 0 ? 0 : room / stride + 1;
}
/* *first and *end = the range first <= o < end of outputs whose input o * stride + offset is in [0, size). */
static inline void atomo__window_inside(int64_t size, int64_t outputs, int64_t stride, int64_t offset, int64_t *first,
                                        int64_t *end)
{
    int64_t a = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
    int64_t b = size - 1 - offset < 0 ? 0 : (size - 1 - offset) / stride + 1;
    *first = ATOMO_MIN(a, outputs);
    *end = ATOMO_MAX(*first, ATOMO_MIN(b, outputs));
}
/* ESHAPE unless labels has a contiguous label for each row of x [..., n]; fn and `what`, x's name, are in the error. */
int atomo__expect_rows(const char *fn, const char *what, const atomo_tensor *x, const atomo_tensor *labels);
/* *counted = the number of labels [n] other than `ignore`; EARG unless these are 0 to classes - 1. */
int atomo__count_within(const char *fn, const int32_t *label, int64_t n, int64_t classes, int32_t ignore,
                        int64_t *counted);
/* EARG unless reduction is one of ATOMO_REDUCE_*. */
int atomo__check_reduction(const char *fn, int reduction);
/* EARG unless stride and dilation are >= 1 and padding >= 0, all below 2^24. */
int atomo__check_window(const atomo_window *g, const char *fn);

#endif
