/* sgemm.c - the matrix product of the layers: C = op(A) op(B) + beta C, row-major. Path: stage 3.
 *
 * On CPUs with AVX-512 it calls oneDNN's sgemm, else OpenBLAS. For matrices of a layer's size oneDNN is twice as fast
 * as OpenBLAS' AVX2 kernels (225 against 110 GFLOP/s per core on Zen 5, for which OpenBLAS before 0.3.26 has no AVX-512
 * kernel), and needs no preparation per shape. Inside a parallel region both use one thread, and are bit-identical
 * each time.
 */
#include "linalg/product.h"
#include <cblas.h>
#include <string.h>

#if defined(ATOMO_HAVE_ONEDNN) && defined(__x86_64__)
#include <oneapi/dnnl/dnnl.h>
#define HAVE_DNNL_SGEMM 1
#endif

bool atomo__sgemm_is_wide(void)
{
#ifdef HAVE_DNNL_SGEMM
    return __builtin_cpu_supports("avx512f") != 0;
#else
    return false;
#endif
}

int atomo__sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                 int64_t ldb, float beta, float *c, int64_t ldc)
{
#ifdef HAVE_DNNL_SGEMM
    if (atomo__sgemm_is_wide()) {
        dnnl_status_t rc = dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc);
        ATOMO_REQUIRE(rc == dnnl_success, rc == dnnl_out_of_memory ? ATOMO_ENOMEM : ATOMO_EINTERNAL,
                      "sgemm (oneDNN): [%lld,%lld] x [%lld,%lld] failed with dnnl_status %d", (long long)m,
                      (long long)k, (long long)k, (long long)n, (int)rc);
        return ATOMO_OK;
    }
#endif
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n,
                (blasint)k, 1.0f, a, (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
    return ATOMO_OK;
}

int atomo__layer_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const atomo__factor *a,
                         const atomo__factor *b, float beta, float *c, int64_t ldc)
{
    if (a->bf16) return atomo__product(ta, tb, m, n, k, 1, a, b, beta, c, ldc);
    const atomo__product_call p = {ATOMO_PRODUCT_SGEMM, ta, tb, false, m, n, k, a->ld, b->ld, ldc, 1, beta};
    return atomo__product_run(&p, a->f32, b->f32, NULL, c);
}

int atomo__affine(int64_t m, int64_t n, int64_t k, const atomo__factor *a, const atomo__factor *b, const float *bias,
                  float *y)
{
    if (a->bf16) {
        const atomo__product_call p = {ATOMO_PRODUCT_BF16, false, true, bias, m, n, k, a->ld, b->ld, n, 1, 0};
        return atomo__product_run(&p, a->bf16, b->bf16, bias, y);
    }
    for (int64_t i = 0; bias && i < m; i++) memcpy(y + i * n, bias, (size_t)n * sizeof(float));
    return atomo__layer_product(false, true, m, n, k, a, b, bias ? 1 : 0, y, n);
}
