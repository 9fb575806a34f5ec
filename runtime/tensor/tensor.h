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
/* What a kernel writes to (output.c). Every function that writes to a tensor which it is given, while it reads others,
 * goes through one of these.
 * atomo__output: for functions that read no tensor. Makes *out (NULL) or checks it (contiguous, same dtype and shape).
 * atomo__target: EARG where two elements of t lie in one place (an expanded view).
 * atomo__operand: *use = x, or a copy of it where target and x overlap and are not the same view. *hold (may be NULL)
 * is to be freed by atomo_tensor_free, also after a failure. atomo__apart: EARG where target and x overlap at all. */
int atomo__output(atomo_tensor **out, int dtype, int ndim, const double *shape, const char *what);
int atomo__target(const atomo_tensor *t, const char *what);
int atomo__operand(const atomo_tensor *target, const atomo_tensor *x, const atomo_tensor **use, atomo_tensor **hold);
int atomo__apart(const atomo_tensor *target, const atomo_tensor *x, const char *what);

/* Outputs of a function that reads tensors: ATOMO_MAKING(making, x, w); names all that it reads (NULL is skipped)
 * before its first atomo__make, and `return atomo__made(&making, rc);` ends it. atomo__make makes *out (NULL), or takes
 * a given one of that dtype and shape. Where a given one is not contiguous or overlaps an input, *out is a tensor apart
 * until atomo__made copies it back. However else the call ends (ATOMO_TRY, ATOMO_REQUIRE, rc < 0), what was made is
 * freed and *out is as it was. */
enum { ATOMO_MAX_OUTPUTS = 8 };
typedef struct atomo_making {
    const atomo_tensor *const *input;
    int inputs, n;
    bool in_place; /* the kernel works element by element: an output may be the very view of an input */
    bool updates;  /* the kernel adds to what a given output holds */
    atomo_tensor **out[ATOMO_MAX_OUTPUTS], *given[ATOMO_MAX_OUTPUTS];
} atomo_making;
#define ATOMO_MAKING(name, ...)                                                                                        \
    __attribute__((cleanup(atomo__unmake)))                                                                            \
    atomo_making name = {.input = (const atomo_tensor *const[]){__VA_ARGS__},                                          \
                         .inputs = (int)(sizeof((const atomo_tensor *const[]){__VA_ARGS__}) / sizeof(atomo_tensor *))}
int atomo__make(atomo_making *making, atomo_tensor **out, int dtype, int ndim, const double *shape, const char *what);
int atomo__made(atomo_making *making, int rc); /* returns rc */
void atomo__unmake(atomo_making *making);

/* A contiguous f32 copy of t, or t itself where it is one. `hold` is to be freed by atomo_tensor_free (may stay NULL).
 */
int atomo__contiguous(const atomo_tensor *t, const atomo_tensor **out, atomo_tensor **hold);
/* The same as another dtype. */
int atomo__dense(const atomo_tensor *t, int dtype, const atomo_tensor **out, atomo_tensor **hold);

enum { ATOMO__CHUNK = 512 }; /* elements of a piece of work that stays in the first cache */
/* x_0 + .. + x_(n-1), n <= ATOMO__CHUNK, in a fixed order; the rest of x [ATOMO__CHUNK] is set to 0 (reduce.c). */
double atomo__sum_chunk(double *x, int n);

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
