/* linalg.c - svd, eigh and qr by LAPACKE. An input is checked for NaN and Inf first (LAPACK's SVD does not return on an
 * Inf), and scaled if squares of its entries could overflow or underflow. Outputs are checked too, because LAPACK can
 * report success (info = 0) for a result with NaN. */
#include "tensor/tensor.h"
#include <lapacke.h>
#include <limits.h>
#include <math.h>
#include <string.h>

/* *copy = a contiguous copy of the f32 matrix a. If its largest magnitude is above 1e18 or below 1e-18 it is divided by
 * *scale, a power of two that brings the largest magnitude near 1; else *scale is 1. */
static int working_copy(const atomo_tensor *a, const char *what, bool square, atomo_tensor **copy, float *scale)
{
    *copy = NULL;
    ATOMO_REQUIRE(a->dtype == ATOMO_F32 && a->ndim == 2, ATOMO_ESHAPE, "%s: tensor is %s %s, expected an f32 matrix",
                  what, atomo__dtype_name(a->dtype), atomo__shape_text(a));
    ATOMO_REQUIRE(!square || a->shape[0] == a->shape[1], ATOMO_ESHAPE, "%s: matrix is %s, expected a square one", what,
                  atomo__shape_text(a));
    ATOMO_REQUIRE(a->shape[0] >= 1 && a->shape[1] >= 1, ATOMO_ESHAPE, "%s: matrix %s is empty", what,
                  atomo__shape_text(a));
    ATOMO_REQUIRE(a->shape[0] <= INT_MAX && a->shape[1] <= INT_MAX, ATOMO_ELIMIT, "%s: matrix %s is too large", what,
                  atomo__shape_text(a));
    double bad, first, largest;
    ATOMO_TRY(atomo_count_nonfinite(a, &bad, &first));
    ATOMO_REQUIRE(bad == 0, ATOMO_ENONFINITE,
                  "%s: %.0f of %s entries are NaN or Inf, the first at row %.0f column %.0f", what, bad,
                  atomo__shape_text(a), floor(first / a->shape[1]) + 1, fmod(first, a->shape[1]) + 1);
    ATOMO_TRY(atomo_norm(a, INFINITY, &largest));
    ATOMO_TRY(atomo_tensor_new(ATOMO_F32, 2, a->shape, copy));
    int rc = atomo_copy(*copy, a);
    *scale = 1;
    if (rc == 0 && largest > 0 && (largest > 1e18 || largest < 1e-18)) {
        int e;
        frexp(largest, &e);
        *scale = ldexpf(1.0f, ATOMO_MAX(ATOMO_MIN(e, 126), -126));
        float *x = atomo__f32(*copy);
        for (int64_t i = 0; i < atomo__numel(*copy); i++) x[i] /= *scale;
    }
    if (rc < 0) {
        atomo_tensor_free(*copy);
        *copy = NULL;
    }
    return rc;
}

static int check_finite(const atomo_tensor *t, const char *what)
{
    double bad, first;
    ATOMO_TRY(atomo_count_nonfinite(t, &bad, &first));
    ATOMO_REQUIRE(bad == 0, ATOMO_ENUMERIC, "%s: the result holds NaN or Inf", what);
    return ATOMO_OK;
}

static void rescale(atomo_tensor *t, float scale)
{
    for (int64_t i = 0; scale != 1 && i < atomo__numel(t); i++) atomo__f32(t)[i] *= scale;
}

int atomo_svd(const atomo_tensor *a, atomo_tensor **u, atomo_tensor **s, atomo_tensor **vt)
{
    atomo_tensor *x, *keep = NULL;
    float scale;
    ATOMO_TRY(working_copy(a, "svd", false, &x, &scale));
    lapack_int m = (lapack_int)a->shape[0], n = (lapack_int)a->shape[1];
    double k = ATOMO_MIN(m, n);
    ATOMO_MAKING(made, a);
    int rc = atomo__make(&made, u, ATOMO_F32, 2, (double[]){m, k}, "svd");
    if (rc == 0) rc = atomo__make(&made, s, ATOMO_F32, 1, &k, "svd");
    if (rc == 0) rc = atomo__make(&made, vt, ATOMO_F32, 2, (double[]){k, n}, "svd");
    if (rc == 0) rc = atomo_tensor_new(ATOMO_F32, 2, x->shape, &keep);
    if (rc == 0) rc = atomo_copy(keep, x);
    if (rc == 0) {
        /* Row-major a is column-major a^T = V diag(s) U^T. Decompose a^T, so that LAPACKE need not transpose. */
        lapack_int info = LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', n, m, atomo__f32(x), n, atomo__f32(*s), atomo__f32(*vt),
                                         n, atomo__f32(*u), (lapack_int)k);
        if (info != 0) { /* divide and conquer did not converge: use the slower QR iteration */
            float *superb = NULL;
            rc = atomo__alloc((void **)&superb, (size_t)k * sizeof(float));
            if (rc == 0)
                info = LAPACKE_sgesvd(LAPACK_COL_MAJOR, 'S', 'S', n, m, atomo__f32(keep), n, atomo__f32(*s),
                                      atomo__f32(*vt), n, atomo__f32(*u), (lapack_int)k, superb);
            atomo__free(superb);
        }
        if (rc == 0 && info != 0)
            rc = atomo__fail(ATOMO_ENUMERIC, "svd: LAPACK did not converge on %s (info %d)", atomo__shape_text(a),
                             (int)info);
    }
    if (rc == 0) rescale(*s, scale);
    if (rc == 0) rc = check_finite(*s, "svd");
    if (rc == 0) rc = check_finite(*u, "svd");
    if (rc == 0) rc = check_finite(*vt, "svd");
    atomo_tensor_free(x);
    atomo_tensor_free(keep);
    return atomo__made(&made, rc);
}

int atomo_eigh(const atomo_tensor *a, atomo_tensor **w, atomo_tensor **v)
{
    atomo_tensor *x, *t = NULL;
    float scale;
    ATOMO_TRY(working_copy(a, "eigh", true, &x, &scale));
    lapack_int n = (lapack_int)a->shape[0];
    ATOMO_MAKING(made, a);
    int rc = atomo__make(&made, w, ATOMO_F32, 1, a->shape, "eigh");
    if (rc == 0) {
        /* The upper triangle of the column-major a^T is the lower one of a. */
        lapack_int info = LAPACKE_ssyevd(LAPACK_COL_MAJOR, 'V', 'U', n, atomo__f32(x), n, atomo__f32(*w));
        if (info != 0)
            rc = atomo__fail(ATOMO_ENUMERIC, "eigh: LAPACK did not converge on %s (info %d)", atomo__shape_text(a),
                             (int)info);
    }
    if (rc == 0) rescale(*w, scale);
    if (rc == 0) rc = atomo_tensor_view(x, 2, x->shape, (double[]){1, n}, 0, &t); /* columns are the eigenvectors */
    if (rc == 0) rc = atomo__make(&made, v, ATOMO_F32, 2, a->shape, "eigh");
    if (rc == 0) rc = atomo_copy(*v, t);
    if (rc == 0) rc = check_finite(*v, "eigh");
    atomo_tensor_free(t);
    atomo_tensor_free(x);
    return atomo__made(&made, rc);
}

int atomo_qr(const atomo_tensor *a, atomo_tensor **q, atomo_tensor **r)
{
    atomo_tensor *x;
    float scale, *tau = NULL;
    ATOMO_TRY(working_copy(a, "qr", false, &x, &scale));
    lapack_int m = (lapack_int)a->shape[0], n = (lapack_int)a->shape[1], k = ATOMO_MIN(m, n);
    ATOMO_MAKING(made, a);
    int rc = atomo__make(&made, q, ATOMO_F32, 2, (double[]){m, k}, "qr");
    if (rc == 0) rc = atomo__make(&made, r, ATOMO_F32, 2, (double[]){k, n}, "qr");
    if (rc == 0) rc = atomo__alloc((void **)&tau, (size_t)k * sizeof(float));
    lapack_int info = 0;
    if (rc == 0) {
        info = LAPACKE_sgeqrf(LAPACK_ROW_MAJOR, m, n, atomo__f32(x), n, tau);
        for (lapack_int i = 0; i < k; i++)
            for (lapack_int j = 0; j < n; j++)
                atomo__f32(*r)[(size_t)i * (size_t)n + (size_t)j] =
                    j < i ? 0 : atomo__f32(x)[(size_t)i * (size_t)n + (size_t)j];
        if (info == 0) info = LAPACKE_sorgqr(LAPACK_ROW_MAJOR, m, k, k, atomo__f32(x), n, tau);
        for (lapack_int i = 0; i < m; i++)
            memcpy(atomo__f32(*q) + (size_t)i * (size_t)k, atomo__f32(x) + (size_t)i * (size_t)n,
                   (size_t)k * sizeof(float));
        if (info != 0)
            rc = atomo__fail(ATOMO_ENUMERIC, "qr: LAPACK failed on %s (info %d)", atomo__shape_text(a), (int)info);
    }
    if (rc == 0) rescale(*r, scale);
    if (rc == 0) rc = check_finite(*q, "qr");
    if (rc == 0) rc = check_finite(*r, "qr");
    atomo__free(tau);
    atomo_tensor_free(x);
    return atomo__made(&made, rc);
}
