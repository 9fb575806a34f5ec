/* matmul.c - matrix products by OpenBLAS. A 2-D operand that is contiguous along rows or columns is passed to BLAS as
 * it is, any other non-contiguous one is copied. */
#include "tensor/tensor.h"
#include <cblas.h>
#include <limits.h>

typedef struct operand { /* a batch of matrices in the form that BLAS takes */
    const float *data;
    CBLAS_TRANSPOSE trans;
    blasint ld;         /* leading dimension, in elements */
    atomo_tensor *hold; /* the copy that data points into, freed by atomo_matmul; NULL: no copy was made */
} operand;

/* Sets *o to the matrices in the last two dimensions of t (at least 2-D). */
static int prepare(const atomo_tensor *t, operand *o)
{
    *o = (operand){.data = atomo__f32(t), .trans = CblasNoTrans};
    int n = t->ndim;
    double rows = t->shape[n - 2], cols = t->shape[n - 1];
    bool one_matrix = n == 2;
    if (one_matrix && t->stride[n - 2] == 1 && t->stride[n - 1] >= ATOMO_MAX(rows, 1) && t->stride[n - 1] <= INT_MAX &&
        !(t->stride[n - 1] == 1)) {
        o->trans = CblasTrans;
        o->ld = (blasint)t->stride[n - 1];
        return ATOMO_OK;
    }
    if (one_matrix && t->stride[n - 1] == 1 && t->stride[n - 2] >= ATOMO_MAX(cols, 1) && t->stride[n - 2] <= INT_MAX) {
        o->ld = (blasint)t->stride[n - 2];
        return ATOMO_OK;
    }
    const atomo_tensor *c;
    ATOMO_TRY(atomo__contiguous(t, &c, &o->hold));
    o->data = atomo__f32(c);
    o->ld = (blasint)ATOMO_MAX(cols, 1);
    return ATOMO_OK;
}

int atomo_matmul(const atomo_tensor *a, const atomo_tensor *b, double beta, atomo_tensor **out)
{
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
    ATOMO_REQUIRE(fits, ATOMO_ESHAPE, "matmul: %s x %s do not fit", atomo__shape_text(a), atomo__shape_text(b));
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
        cblas_sgemm(CblasRowMajor, oa.trans, ob.trans, (blasint)m, (blasint)n, (blasint)k, 1.0f,
                    oa.data + i * (int64_t)(m * k), oa.ld, ob.data + i * (int64_t)(k * n), ob.ld, (float)beta,
                    atomo__f32(*out) + i * (int64_t)(m * n), (blasint)n);
    atomo_tensor_free(oa.hold);
    atomo_tensor_free(ob.hold);
    return atomo__made(&made, rc);
}
