/* product.c - operands in fp32 or bf16, and their products. Path: stage 3.
 *
 * A bf16 operand is rounded once, into a copy, and used in any number of products. The copy holds bf16 where the CPU
 * has instructions that multiply it. Elsewhere it holds the rounded values as f32, which an f32 product multiplies
 * exactly: the same result, up to the order of the sums, at the speed of fp32 less the time of rounding.
 */
#include "linalg/product.h"
#include "tensor/float16.h"

#ifndef ATOMO_HAVE_ONEDNN
const char *atomo__bf16_unit(void)
{
    return NULL;
}
#endif

static const char *bf16_text(void)
{
    const char *unit = atomo__bf16_unit();
    return unit ? unit : "by conversion";
}

__attribute__((constructor)) static void register_bf16(void)
{
    atomo__build_info_add("bf16", bf16_text);
}

int atomo__expect_precision(const char *fn, int precision)
{
    ATOMO_REQUIRE(precision >= 0 && precision < ATOMO_PRECISION_COUNT, ATOMO_EARG, "%s: precision %d, expected 0 to %d",
                  fn, precision, ATOMO_PRECISION_COUNT - 1);
    return ATOMO_OK;
}

/* Rounds the rows of a into f's copy, which has no gaps between rows. */
static void round_rows(int64_t rows, int64_t cols, const float *a, int64_t ld, atomo__factor *f)
{
    enum { BLOCK = 1 << 12 };
    const bool gaps = ld != cols && rows > 1;
    const int64_t lines = gaps ? rows : (rows * cols + BLOCK - 1) / BLOCK, step = gaps ? cols : BLOCK;
#pragma omp parallel for schedule(static) if (rows * cols > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < lines; i++) {
        const int64_t n = gaps ? cols : ATOMO_MIN(BLOCK, rows * cols - i * BLOCK);
        if (f->bf16)
            atomo__bf16_codes(n, a + i * (gaps ? ld : step), (uint16_t *)f->copy + i * step);
        else
            atomo__bf16_round(n, a + i * (gaps ? ld : step), (float *)f->copy + i * step);
    }
}

static int make_copy(bool native, int64_t rows, int64_t cols, const float *a, int64_t ld, atomo__factor *f)
{
    *f = (atomo__factor){0};
    size_t bytes;
    ATOMO_TRY(atomo__size_mul((size_t)rows, (size_t)cols, native ? sizeof(uint16_t) : sizeof(float), &bytes));
    ATOMO_TRY(atomo__alloc(&f->copy, bytes));
    f->ld = ATOMO_MAX(cols, 1);
    f->f32 = native ? NULL : f->copy;
    f->bf16 = native ? f->copy : NULL;
    round_rows(rows, cols, a, ld, f);
    return ATOMO_OK;
}

int atomo__factor_make(int precision, int64_t rows, int64_t cols, const float *a, int64_t ld, atomo__factor *f)
{
    if (precision != ATOMO_PRECISION_FP32) return make_copy(atomo__bf16_unit() != NULL, rows, cols, a, ld, f);
    *f = (atomo__factor){.f32 = a, .ld = ld};
    return ATOMO_OK;
}

int atomo__factor_rounded(int64_t rows, int64_t cols, const float *a, int64_t ld, atomo__factor *f)
{
    return make_copy(false, rows, cols, a, ld, f);
}

int atomo__factor_packed(int64_t rows, int64_t cols, const uint16_t *a, atomo__factor *f)
{
    *f = (atomo__factor){.ld = ATOMO_MAX(cols, 1)};
    if (atomo__bf16_unit()) {
        f->bf16 = a;
        return ATOMO_OK;
    }
    float *values;
    ATOMO_TRY(atomo__bf16_unpacked(a, rows * cols, &values));
    f->f32 = f->copy = values;
    return ATOMO_OK;
}

void atomo__factor_free(atomo__factor *f)
{
    atomo__free(f->copy);
    *f = (atomo__factor){0};
}

#ifdef ATOMO_HAVE_ONEDNN
ATOMO_CLONES static void scale_rows(int64_t m, int64_t n, float factor, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) c[i * ldc + j] *= factor;
}
#endif

int atomo__product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const atomo__factor *a,
                   const atomo__factor *b, float beta, float *c, int64_t ldc)
{
    atomo__product_call p = {ATOMO_PRODUCT_BLAS, ta, tb, false, m, n, k, a->ld, b->ld, ldc, alpha, beta};
#ifdef ATOMO_HAVE_ONEDNN
    if (a->bf16) {
        p.engine = ATOMO_PRODUCT_BF16, p.alpha = 1, p.beta = beta != 0;
        if (beta != 0 && beta != 1) scale_rows(m, n, beta, c, ldc);
        ATOMO_TRY(atomo__product_run(&p, a->bf16, b->bf16, NULL, c));
        if (alpha != 1) scale_rows(m, n, alpha, c, ldc);
        return ATOMO_OK;
    }
#endif
    return atomo__product_run(&p, a->f32, b->f32, NULL, c);
}
