/* tensor.h - helpers for atomo_tensor that several kernels use. Private. */
#ifndef ATOMO_TENSOR_H
#define ATOMO_TENSOR_H

#include "core/core.h"

/* Returns the size of dimension i; a negative i counts from the end. */
static inline int64_t atomo__size(const atomo_tensor *t, int i)
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

/* Returns element i of a contiguous tensor of i32 or u8. */
static inline int64_t atomo__integer_at(const atomo_tensor *t, int64_t i)
{
    return t->dtype == ATOMO_U8 ? ((const uint8_t *)t->data)[i] : atomo__i32(t)[i];
}

/* Returns whether v is a whole number of magnitude 2^53 at most, as every size, stride and offset must be. */
static inline bool atomo__whole(double v)
{
    return v >= -0x1p53 && v <= 0x1p53 && v == (double)(int64_t)v;
}

static inline bool atomo__fits_i32(double v)
{
    return v >= INT32_MIN && v <= INT32_MAX && v == (double)(int32_t)v;
}

/* hold: *held becomes a view of the same elements as t and keeps their storage alive after t is freed; nothing is
 * allocated. drop: releases the storage and sets *held to zeros; a *held of zeros is allowed. */
void atomo__tensor_hold(atomo_tensor *held, const atomo_tensor *t);
void atomo__tensor_drop(atomo_tensor *held);

size_t atomo__dtype_size(int dtype);
const char *atomo__dtype_name(int dtype);
/* Refuses f16 and bf16 (EDTYPE), for functions that take several dtypes. what: the function, in the error text. */
int atomo__expect_numbers(const atomo_tensor *t, const char *what);
/* Returns a text such as "[2,3]". It is valid until the calling thread's eighth call after this one. */
const char *atomo__shape_text(const atomo_tensor *t);
const char *atomo__dims_text(int ndim, const double *shape);
bool atomo__same_shape(const atomo_tensor *a, const atomo_tensor *b);
/* Checks that t is not NULL (EARG), of that dtype (EDTYPE), of ndim dimensions (any if ndim < 0) and contiguous
 * (ESHAPE). `what` names the argument in the error text: "conv2d: x". */
int atomo__expect(const atomo_tensor *t, int dtype, int ndim, const char *what);
/* The same for argument `name` of function `fn`; the text "fn: name" is built only on failure. */
int atomo__expect_argument(const atomo_tensor *t, int dtype, int ndim, const char *fn, const char *name);
/* Checks of the tensors that a kernel writes to (output.c). Every function that writes to a tensor that its caller
 * passed calls one of these, or atomo__make.
 * atomo__output: for functions that read no tensor. Allocates *out if it is NULL, else checks it (contiguous, of this
 * dtype and shape; ESHAPE).
 * atomo__target: EARG if two elements of t share an address (an expanded view).
 * atomo__operand: *use = x, or a copy of x if target and x may overlap and are not the same view. *hold is the copy or
 * NULL; the caller frees it by atomo_tensor_free, also after a failure. For kernels that work element by element.
 * atomo__operand_apart: the same for other kernels; a copy of the same view, too.
 * atomo__apart: EARG if target and x may overlap. */
int atomo__output(atomo_tensor **out, int dtype, int ndim, const double *shape, const char *what);
int atomo__target(const atomo_tensor *t, const char *what);
int atomo__operand(const atomo_tensor *target, const atomo_tensor *x, const atomo_tensor **use, atomo_tensor **hold);
int atomo__operand_apart(const atomo_tensor *target, const atomo_tensor *x, const atomo_tensor **use,
                         atomo_tensor **hold);
int atomo__apart(const atomo_tensor *target, const atomo_tensor *x, const char *what);
/* *first and *end = the address range of t's elements: the lowest byte, and one past the highest. */
void atomo__extent(const atomo_tensor *t, uintptr_t *first, uintptr_t *end);

/* Outputs of a function that reads tensors. `ATOMO_MAKING(making, x, w);` lists all tensors that the function reads
 * (NULL is skipped) before its first atomo__make, and `return atomo__made(&making, rc);` ends the function.
 * atomo__make allocates *out if it is NULL, else checks the dtype and shape of the given tensor. If the given tensor is
 * not contiguous or overlaps an input, *out is a temporary tensor until atomo__made copies it to the given one. If the
 * function returns in any other way (ATOMO_TRY, ATOMO_REQUIRE) or rc < 0, the tensors made here are freed and *out has
 * its old value. */
enum { ATOMO_MAX_OUTPUTS = 8 };
typedef struct atomo_making {
    const atomo_tensor *const *input;
    int inputs, n;
    bool in_place; /* the kernel works element by element, so an output may be the same view as an input */
    bool updates;  /* the kernel reads a given output and adds to it */
    atomo_tensor **out[ATOMO_MAX_OUTPUTS], *given[ATOMO_MAX_OUTPUTS];
} atomo_making;
#define ATOMO_MAKING(name, ...)                                                                                        \
    __attribute__((cleanup(atomo__unmake)))                                                                            \
    atomo_making name = {.input = (const atomo_tensor *const[]){__VA_ARGS__},                                          \
                         .inputs = (int)(sizeof((const atomo_tensor *const[]){__VA_ARGS__}) / sizeof(atomo_tensor *))}
int atomo__make(atomo_making *making, atomo_tensor **out, int dtype, int ndim, const double *shape, const char *what);
int atomo__made(atomo_making *making, int rc); /* returns rc */
void atomo__unmake(atomo_making *making);

/* *out = t if it is contiguous f32, else a contiguous f32 copy. *hold is that copy or NULL; the caller frees it by
 * atomo_tensor_free. */
int atomo__contiguous(const atomo_tensor *t, const atomo_tensor **out, atomo_tensor **hold);
/* The same for the given dtype. */
int atomo__dense(const atomo_tensor *t, int dtype, const atomo_tensor **out, atomo_tensor **hold);

enum { ATOMO__CHUNK = 512 }; /* elements of a block that stays in the first-level cache */
/* Returns x_0 + .. + x_(n-1), n <= ATOMO__CHUNK, added in a fixed order. Sets the rest of x [ATOMO__CHUNK] to 0
 * (reduce.c). */
double atomo__sum_chunk(double *x, int n);

enum { ATOMO_PARALLEL_MIN = 1 << 15 }; /* elements below which a loop stays on one thread */
/* Runs the statement for i = 0, step, 2 step, ... < n, on all threads if `wide` is true. If not, no OpenMP region is
 * entered: a region costs half a microsecond, several times the work of a small operator, even if its if clause keeps
 * it on one thread (libgomp makes a team of one and wakes it by a system call). */
#define ATOMO_FOR(i, n, step, wide, ...)                                                                               \
    do {                                                                                                               \
        const int64_t for_end_ = (n);                                                                                  \
        if (wide) {                                                                                                    \
            _Pragma("omp parallel for schedule(static)") for (int64_t i = 0; i < for_end_; i += (step)) __VA_ARGS__;   \
        } else {                                                                                                       \
            for (int64_t i = 0; i < for_end_; i += (step)) __VA_ARGS__;                                                \
        }                                                                                                              \
    } while (0)

#endif
