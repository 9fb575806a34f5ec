/* product.h - matrix products whose operands are f32, or are rounded to bf16 first (ATOMO_PRECISION_*). Sums and
 * results are f32. Private. */
#ifndef ATOMO_PRODUCT_H
#define ATOMO_PRODUCT_H

#include "tensor/tensor.h"

/* An operand, a matrix [rows, cols]. Exactly one of f32 and bf16 is set. */
typedef struct atomo__factor {
    const float *f32;     /* its elements */
    const uint16_t *bf16; /* its elements, for the CPU's bf16 instructions */
    int64_t ld;           /* elements from one row to the next */
    void *copy;           /* the rounded copy that f32 or bf16 points to; NULL: f32 is the caller's matrix */
} atomo__factor;

/* EARG unless precision is one of ATOMO_PRECISION_*; fn is in the error. */
int atomo__expect_precision(const char *fn, int precision);
/* *f = the operand a [rows, cols], with rows `ld` apart. FP32: f refers to a. BF16: f is a rounded copy, and a may
 * change. The caller frees f, also after a failure; a factor of zeros may be freed. */
int atomo__factor_make(int precision, int64_t rows, int64_t cols, const float *a, int64_t ld, atomo__factor *f);
/* The same with a rounded copy in f32, on every CPU. */
int atomo__factor_rounded(int64_t rows, int64_t cols, const float *a, int64_t ld, atomo__factor *f);
/* *f = the packed operand whose codes are a (tensor/float16.h), without gaps between rows. f may refer to a. */
int atomo__factor_packed(int64_t rows, int64_t cols, const uint16_t *a, atomo__factor *f);
void atomo__factor_free(atomo__factor *f);
/* Returns the rows of f from number `row` on. They refer to f. */
static inline atomo__factor atomo__factor_from(const atomo__factor *f, int64_t row)
{
    return (atomo__factor){f->f32 ? f->f32 + row * f->ld : NULL, f->bf16 ? f->bf16 + row * f->ld : NULL, f->ld, NULL};
}

/* c [m,n] = alpha op(a) op(b) + beta c; op(a) is [m,k], ta: a is [k,m]; op(b) is [k,n], tb: b is [n,k]. a and b have
 * the same precision. alpha is 1 if beta is not 0 and the operands are bf16. f32 operands are multiplied by OpenBLAS.
 */
int atomo__product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const atomo__factor *a,
                   const atomo__factor *b, float beta, float *c, int64_t ldc);

/* The same for layers: alpha is 1, beta is 0 or 1, and f32 operands are multiplied by atomo__sgemm. */
int atomo__layer_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const atomo__factor *a,
                         const atomo__factor *b, float beta, float *c, int64_t ldc);
/* y [m,n] = a b^T + bias, with a [m,k], b [n,k], and bias [n] or NULL. */
int atomo__affine(int64_t m, int64_t n, int64_t k, const atomo__factor *a, const atomo__factor *b, const float *bias,
                  float *y);
/* c [m,n] = op(a) op(b) + beta c for f32 matrices, by oneDNN or OpenBLAS. Not recorded: a convolution's products. */
int atomo__sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                 int64_t ldb, float beta, float *c, int64_t ldc);
bool atomo__sgemm_is_wide(void); /* true if atomo__sgemm runs oneDNN's AVX-512 kernels */

/* A product as a library computes it: c [m,n] = alpha op(a) op(b) + beta c, with `biased` plus a bias in each row. */
typedef struct atomo__product_call {
    int engine; /* ATOMO_PRODUCT_*; BF16: alpha is 1, beta is 0 or 1, and 0 with `biased` */
    bool ta, tb, biased;
    int64_t m, n, k, lda, ldb, ldc;
    float alpha, beta;
} atomo__product_call;
/* Computes the product of a and b, f32 or bf16 as the engine reads them. All products above end here, and are recorded
 * here if atomo_products_record says so. */
int atomo__product_run(const atomo__product_call *p, const void *a, const void *b, const float *bias, float *c);

/* The name of the instructions that multiply bf16, such as "AMX"; NULL: there are none, or no oneDNN that uses them,
 * and products of rounded operands are f32 products. */
const char *atomo__bf16_unit(void);
#ifdef ATOMO_HAVE_ONEDNN
/* c = op(a) op(b), plus bias [n] in each row (NULL: none), plus c with `add`, by these instructions. Not both of bias
 * and add. */
int atomo__bf16_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda,
                        const uint16_t *b, int64_t ldb, const float *bias, bool add, float *c, int64_t ldc);
#endif

#endif
