/* tensor.h - private helpers over atomo_tensor that several kernels use. */
#ifndef ATOMO_TENSOR_H
#define ATOMO_TENSOR_H

#include "core/core.h"

static inline int64_t atomo__size(const atomo_tensor *t, int i) /* dimension i; negative counts from the end */
{
    return (int64_t)t->shape[i < 0 ? t->ndim + i : i];
}

static inline int64_t atomo__numel(const atomo_tensor *t)
{
    return (int64_t)t->numel;
}

static inline float *atomo__f32(const atomo_tensor *t)
{
    return (float *)t->data;
}

static inline int32_t *atomo__i32(const atomo_tensor *t)
{
    return (int32_t *)t->data;
}

/* A whole number that a double holds exactly: what a size, stride or offset must be. */
static inline bool atomo__whole(double v)
{
    return v >= -0x1p53 && v <= 0x1p53 && v == (double)(int64_t)v;
}

static inline bool atomo__fits_i32(double v)
{
    return v >= INT32_MIN && v <= INT32_MAX && v == (double)(int32_t)v;
}

/* What a job needs of a tensor: `held` views the same bytes and keeps them, whatever becomes of t. Allocates nothing.
 * drop is fine for one that is all zeros, and leaves it so. */
void atomo__tensor_hold(atomo_tensor *held, const atomo_tensor *t);
void atomo__tensor_drop(atomo_tensor *held);

size_t atomo__dtype_size(int dtype);
const char *atomo__dtype_name(int dtype);
/* "[2,3]" into a buffer that lives in the thread (8 of them, used in turn). */
const char *atomo__shape_text(const atomo_tensor *t);
const char *atomo__dims_text(int ndim, const double *shape);
bool atomo__same_shape(const atomo_tensor *a, const atomo_tensor *b);
/* Status 0 when t is a contiguous tensor of that dtype and (ndim >= 0) rank; `what` names the argument: "conv2d: x". */
int atomo__expect(const atomo_tensor *t, int dtype, int ndim, const char *what);
/* The same for argument `name` of function `fn`: "fn: name" is put together only where it is needed. */
int atomo__expect_argument(const atomo_tensor *t, int dtype, int ndim, const char *fn, const char *name);
/* Makes *out (NULL) or checks it (contiguous, same dtype and shape). */
int atomo__output(atomo_tensor **out, int dtype, int ndim, const double *shape, const char *what);
/* For a call that may fail after it has made an output: ATOMO_MAKING(made); then atomo__make in place of atomo__output,
 * and `return atomo__made(&made, rc);` at the end. However else the call ends (ATOMO_TRY, ATOMO_REQUIRE, rc < 0), the
 * tensors that it made itself are freed and their *out is NULL again. */
typedef struct atomo_making {
    int n;
    atomo_tensor **out[8];
} atomo_making;
#define ATOMO_MAKING(name) __attribute__((cleanup(atomo__unmake))) atomo_making name = {0}
int atomo__make(atomo_making *made, atomo_tensor **out, int dtype, int ndim, const double *shape, const char *what);
int atomo__made(atomo_making *made, int rc); /* returns rc */
void atomo__unmake(atomo_making *made);

/* A contiguous f32 copy of t, or t itself where it is one. `hold` is to be freed by atomo_tensor_free (may stay NULL).
 */
int atomo__contiguous(const atomo_tensor *t, const atomo_tensor **out, atomo_tensor **hold);

enum { ATOMO_PARALLEL_MIN = 1 << 15 }; /* elements below which a loop stays on one thread */
/* The statement for i = 0, step, 2 step, ... < n, on all threads where `wide` holds. An OpenMP region costs half a
 * microsecond, several times a small operator's own work, even where its if clause keeps it on one thread (libgomp
 * makes a team of one, and wakes it by a system call): a narrow loop enters none. */
#define ATOMO_FOR(i, n, step, wide, ...)                                                                               \
    do {                                                                                                               \
        const int64_t for_end_ = (n);                                                                                  \
        if (wide) {                                                                                                    \
            _Pragma("omp parallel for schedule(static)") for (int64_t i = 0; i < for_end_; i += (step)) __VA_ARGS__;   \
        } else {                                                                                                       \
            for (int64_t i = 0; i < for_end_; i += (step)) __VA_ARGS__;                                                \
        }                                                                                                              \
    } while (0)

/* FFTW's planner is not thread-safe: whoever makes or destroys a plan holds this lock (fft.c). */
void atomo__fft_lock(void);
void atomo__fft_unlock(void);

#endif
