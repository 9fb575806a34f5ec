/* nn.h - private helpers that several layers use. */
#ifndef ATOMO_NN_H
#define ATOMO_NN_H

#include "tensor/tensor.h"

/* out[c] = sum over rows of a [rows, c]: the gradient of a bias. Blocks in float, between blocks in double, fixed
 * order. */
int atomo__column_sums(const float *a, int64_t rows, int64_t c, float *out);
/* Mean, and the sum of squared differences from it, of rows of n values that begin `step` apart: in double, for values
 * whose squares leave the range of float. */
void atomo__moments(const float *x, int64_t rows, int64_t step, int64_t n, double *mean, double *m2);
/* c [m,n] = op(a) op(b) + beta c; op(a) is [m,k], ta: a is stored [k,m]; op(b) is [k,n], tb: b is stored [n,k]. */
int atomo__sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                 int64_t ldb, float beta, float *c, int64_t ldc);
bool atomo__sgemm_is_wide(void); /* it runs oneDNN's AVX-512 kernels */
/* Asks for n floats that will be read (write: written) soon, `ahead` floats from p. Kernels go through memory in short
 * streams, which the hardware follows late; asked for a block ahead, memory works while the block at hand is computed.
 * Past the ends of an array the request is void. */
static inline __attribute__((always_inline)) void atomo__ask(const float *p, int64_t ahead, int64_t n, int write)
{
    enum { LINE = 16 };
    const char *at = (const char *)((uintptr_t)p + (uintptr_t)(ahead * (int64_t)sizeof(float)));
    if (write)
        for (int64_t i = 0; i < n; i += LINE) __builtin_prefetch(at + 4 * i, 1, 2);
    else
        for (int64_t i = 0; i < n; i += LINE) __builtin_prefetch(at + 4 * i, 0, 2);
}
/* gy must have y's shape: "fn: gy is [..], y is [..]". */
int atomo__expect_gradient(const atomo_tensor *gy, int ndim, const double *shape, const char *fn);
/* Positions of a sliding window along one dimension; < 1 where it does not fit. */
static inline int64_t atomo__window_count(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                                          int64_t dilation)
{
    int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
    return room < 0 ? 0 : room / stride + 1;
}
/* Outputs *first <= o < *end whose input o * stride + offset lies in [0, size). */
static inline void atomo__window_inside(int64_t size, int64_t outputs, int64_t stride, int64_t offset, int64_t *first,
                                        int64_t *end)
{
    int64_t a = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
    int64_t b = size - 1 - offset < 0 ? 0 : (size - 1 - offset) / stride + 1;
    *first = ATOMO_MIN(a, outputs);
    *end = ATOMO_MAX(*first, ATOMO_MIN(b, outputs));
}
int atomo__check_reduction(const char *fn, int reduction);
/* stride, dilation >= 1, padding >= 0, all below 2^24. */
int atomo__check_window(const atomo_window *g, const char *fn);

#endif
