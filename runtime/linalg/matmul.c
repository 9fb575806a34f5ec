/* matmul.c - matrix products. A 2-D operand that is contiguous along rows or columns is used as it is, any other
 * non-contiguous one is copied. */
#include "linalg/product.h"
#include <limits.h>

typedef struct operand { /* a batch of matrices */
    const float *data;
    bool trans;         /* the matrices are stored transposed */
    int64_t ld;         /* leading dimension, in elements */
    atomo_tensor *hold; /* the copy that data points into, freed by atomo_matmul; NULL: no copy was made */
} operand;

/* Sets *o to the matrices in the last two dimensions of t (at least 2-D). */
static int prepare(const atomo_tensor *t, operand *o)
{
    *o = (operand){.data = atomo__f32(t)};
    int n = t->ndim;
    double rows = t->shape[n - 2], cols = t->shape[n - 1];
    bool one_matrix = n == 2;
    if (one_matrix && t->stride[n - 2] == 1 && t->stride[n - 1] >= ATOMO_MAX(rows, 1) && t->stride[n - 1] <= INT_MAX &&
        !(t->stride[n - 1] == 1)) {
        o->trans = true;
        o->ld = (int64_t)t->stride[n - 1];
        return ATOMO_OK;
    }
    if (one_matrix && t->stride[n - 1] == 1 && t->stride[n - 2] >= ATOMO_MAX(cols, 1) && t->stride[n - 2] <= INT_MAX) {
        o->ld = (int64_t)t->stride[n - 2];
        return ATOMO_OK;
    }
    const atomo_tensor *c;
    ATOMO_TRY(atomo__contiguous(t, &c, &o->hold));
    o->data = atomo__f32(c);
    o->ld = (int64_t)ATOMO_MAX(cols, 1);
    return ATOMO_OK;
}

/* *f = matrix number i of a batch of [rows, cols]. */
static int matrix(int precision, const operand *o, int64_t i, int64_t rows, int64_t cols, atomo__factor *f)
{
    return atomo__factor_make(precision, o->trans ? cols : rows, o->trans ? rows : cols, o->data + i * rows * cols,
                              o->ld, f);
}

/* c = a b + beta c for matrix number i of two batches. */
static int one_product(int precision, const operand *a, const operand *b, int64_t i, int64_t m, int64_t n, int64_t k,
                       float beta, float *c)
{
    atomo__factor fa = {0}, fb = {0};
    int rc = matrix(precision, a, i, m, k, &fa);
    if (rc == 0) rc = matrix(precision, b, i, k, n, &fb);
    if (rc == 0) rc = atomo__product(a->trans, b->trans, m, n, k, 1, &fa, &fb, beta, c, n);
    atomo__factor_free(&fa);
    atomo__factor_free(&fb);
    return rc;
}

int atomo_matmul(const atomo_tensor *a, const atomo_tensor *b, double beta, int precision, atomo_tensor **out)
{
    ATOMO_TRY(atomo__expect_precision("matmul", precision));
    ATOMO_REQUIRE(a->dtype == ATOMO_F32 && b->dtype == ATOMO_F32, ATOMO_EDTYPE, "matmul: %s x %s, both must be f32",
                  atomo__dtype_name(a->dtype), atomo__dtype_name(b->dtype));
    ATOMO_REQUIRE(a->ndim >= 1 && b->ndim >= 1, ATOMO_ESHAPE, "matmul: %s x %s, scalars have no matrix product",
                  atomo__shape_text(a), atomo__shape_text(b));
    atomo_tensor va = *a, vb = *b; /* 1-D operands viewed as a row and a column; these views own nothing */
    if (a->ndim == 1) {
        va.ndim = 2;
        va.shape[1] = a->shape[0], va.stride[1] = a->stride[0], va.shape[0] = 1, va.stride[0] = a->shape[0];
    }
    if (b->ndim == 1) {
        vb.ndim = 2;
        vb.shape[1] = 1, vb.stride[1] = 1;
        if (b->stride[0] != 1) vb.stride[1] = b->stride[0] * b->shape[0];
    }
    double m = va.shape[va.ndim - 2], k = va.shape[va.ndim - 1], n = vb.shape[vb.ndim - 1], shape[ATOMO_MAX_DIM];
    bool fits = vb.shape[vb.ndim - 2] == k && va.ndim == vb.ndim;
    int nd = 0;
    double batch = 1;
    for (int i = 0; fits && i < va.ndim - 2; i++) {
        fits = va.shape[i] == vb.shape[i];
        batch *= va.shape[i];
        shape[nd++] = va.shape[i];
    }
    ATOMO_REQUIRE(fits, ATOMO_ESHAPE, "matmul: %s x %s do not fit, expected [..,m,k] x [..,k,n]", atomo__shape_text(a),
                  atomo__shape_text(b));
    ATOMO_REQUIRE(m <= INT_MAX && n <= INT_MAX && k <= INT_MAX, ATOMO_ELIMIT, "matmul: %s x %s is too large",
                  atomo__shape_text(a), atomo__shape_text(b));
    if (a->ndim != 1) shape[nd++] = m;
    if (b->ndim != 1) shape[nd++] = n;
    ATOMO_MAKING(made, a, b);
    if (!*out) beta = 0;
    made.updates = beta != 0;
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, nd, shape, "matmul"));
    if ((*out)->numel == 0) return atomo__made(&made, ATOMO_OK);
    if (k == 0) return atomo__made(&made, beta == 0 ? atomo_fill(*out, 0) : ATOMO_OK);
    operand oa = {0}, ob = {0};
    int rc = prepare(&va, &oa);
    if (rc == 0) rc = prepare(&vb, &ob);
    for (int64_t i = 0; rc == 0 && i < (int64_t)batch; i++)
        rc = one_product(precision, &oa, &ob, i, (int64_t)m, (int64_t)n, (int64_t)k, (float)beta,
                         atomo__f32(*out) + i * (int64_t)(m * n));
    atomo_tensor_free(oa.hold);
    atomo_tensor_free(ob.hold);
    return atomo__made(&made, rc);
}
