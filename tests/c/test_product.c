/* test_product.c - rounding to bf16, and products of rounded operands against sums in double. */
#include "check.h"
#include "linalg/product.h"
#include "tensor/float16.h"

static float of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static void rounding(void)
{
    static const struct {
        uint32_t f32, bf16;
    } cases[] = {
        {0x00000000, 0x0000}, {0x80000000, 0x8000}, /* zeros */
        {0x3F800000, 0x3F80}, {0xBF800000, 0xBF80}, /* 1, -1 */
        {0x3F808000, 0x3F80}, {0x3F818000, 0x3F82}, /* ties to even */
        {0x3F808001, 0x3F81}, {0x3F817FFF, 0x3F81}, /* just off a tie */
        {0x3FFFFFFF, 0x4000},                       /* a carry into the exponent */
        {0x00000001, 0x0000}, {0x00008000, 0x0000}, {0x00018000, 0x0002}, {0x007FFFFF, 0x0080}, /* subnormal */
        {0x7F7F7FFF, 0x7F7F}, {0x7F7F8000, 0x7F80}, {0xFF7FFFFF, 0xFF80},                       /* largest; beyond it */
        {0x7F800000, 0x7F80}, {0xFF800000, 0xFF80},                                             /* infinities */
        {0x7F800001, 0x7FC0}, {0xFFFFFFFF, 0xFFFF}, {0x7FC00000, 0x7FC0}, /* NaN, also one whose payload is cut off */
    };
    enum { CASES = sizeof cases / sizeof *cases, COPIES = 40 }; /* at each place of a vector */
    float x[CASES * COPIES], kept[CASES * COPIES], values[CASES * COPIES];
    uint16_t code[CASES * COPIES];
    for (int n = 0; n < CASES * COPIES; n += 7) {
        for (int i = 0; i < n; i++) x[i] = of_bits(cases[i % CASES].f32);
        atomo__bf16_codes(n, x, code);
        atomo__bf16_round(n, x, kept);
        atomo__bf16_values(n, code, values);
        for (int i = 0; i < n; i++) {
            CHECK(code[i] == cases[i % CASES].bf16);
            CHECK(bits_of(kept[i]) == cases[i % CASES].bf16 << 16);
            CHECK(bits_of(values[i]) == cases[i % CASES].bf16 << 16);
        }
    }
}

static void rounding_is_nearest(void)
{
    uint32_t state = 1;
    for (int i = 0; i < 200000; i++) {
        state = state * 1664525 + 1013904223;
        const float x = of_bits(state);
        if (!isfinite(x) || fabsf(x) > 3e38f) continue;
        uint16_t code;
        atomo__bf16_codes(1, &x, &code);
        const double error = fabs((double)of_bits((uint32_t)code << 16) - (double)x);
        for (int step = -1; step <= 1; step += 2) {
            const double other = fabs((double)of_bits((uint32_t)(code + step) << 16) - (double)x);
            CHECK(!(other < error) && !(other == error && (code & 1)));
        }
    }
}

enum { MOST = 70 };

static float value(int i) /* not a bf16, of either sign */
{
    return sinf((float)i * 1.7f) * 1.001f;
}

/* Compares c = op(a) op(b) (+ c) with sums in double of the rounded operands. */
static void compare(int precision, bool ta, bool tb, int m, int n, int k, bool add)
{
    const int lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1, ldc = n + 2;
    static float a[MOST * (MOST + 3)], b[MOST * (MOST + 3)], ra[MOST * (MOST + 3)], rb[MOST * (MOST + 3)],
        c[MOST * (MOST + 3)];
    for (int i = 0; i < MOST * (MOST + 3); i++) a[i] = value(i), b[i] = value(i + 999), c[i] = value(i + 5);
    memcpy(ra, a, sizeof a), memcpy(rb, b, sizeof b);
    if (precision == ATOMO_PRECISION_BF16) {
        atomo__bf16_round(MOST * (MOST + 3), a, ra);
        atomo__bf16_round(MOST * (MOST + 3), b, rb);
    }
    atomo__factor fa = {0}, fb = {0};
    CHECK_OK(atomo__factor_make(precision, ta ? k : m, ta ? m : k, a, lda, &fa));
    CHECK_OK(atomo__factor_make(precision, tb ? n : k, tb ? k : n, b, ldb, &fb));
    CHECK((fa.copy == NULL) == (precision == ATOMO_PRECISION_FP32));
    CHECK_OK(atomo__product(ta, tb, m, n, k, 1, &fa, &fb, add, c, ldc));
    for (int i = 0; i < m; i++)
        for (int j = 0; j < ldc; j++) {
            double sum = j >= n || add ? (double)value(i * ldc + j + 5) : 0; /* columns from n on stay as they are */
            for (int l = 0; j < n && l < k; l++)
                sum += (double)ra[ta ? l * lda + i : i * lda + l] * (double)rb[tb ? j * ldb + l : l * ldb + j];
            CHECK_NEAR((double)c[i * ldc + j], sum, 1e-6 * (k + 1));
        }
    if (!ta && m > 2) { /* the rows from number 2 on, times 3 */
        const atomo__factor rest = atomo__factor_from(&fa, 2);
        float before[MOST];
        if (!add) {
            memcpy(before, c + 2 * ldc, sizeof(float) * (size_t)n);
            CHECK_OK(atomo__product(ta, tb, m - 2, n, k, 3, &rest, &fb, 0, c, ldc));
            for (int j = 0; j < n; j++) CHECK_NEAR((double)c[j], 3 * (double)before[j], 1e-6 * (k + 1));
        }
    }
    atomo__factor_free(&fa);
    atomo__factor_free(&fb);
}

static void products(void)
{
    static const int shapes[][3] = {{1, 1, 1},    {1, 64, 64}, {64, 1, 5}, {5, 7, 1}, {33, 65, 70},
                                    {64, 64, 64}, {3, 4, 0},   {0, 4, 3},  {4, 0, 3}, {2, 70, 31}};
    for (int precision = 0; precision < ATOMO_PRECISION_COUNT; precision++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (int form = 0; form < 8; form++) {
                if (precision == ATOMO_PRECISION_FP32 && shapes[s][0] * shapes[s][1] == 0)
                    continue; /* BLAS: m, n > 0 */
                compare(precision, form & 1, form & 2, shapes[s][0], shapes[s][1], shapes[s][2], form & 4);
            }
    CHECK_OK(atomo__expect_precision("f", ATOMO_PRECISION_BF16));
    CHECK_STATUS(atomo__expect_precision("f", 2), ATOMO_EARG, "f: precision 2, expected 0 to 1");
}

static void not_finite(void)
{
    const float a[6] = {INFINITY, 1, NAN, 1, 3e38f, 1}, b[4] = {1, 0, 2, 1};
    float c[6];
    atomo__factor fa = {0}, fb = {0};
    CHECK_OK(atomo__factor_make(ATOMO_PRECISION_BF16, 3, 2, a, 2, &fa));
    CHECK_OK(atomo__factor_make(ATOMO_PRECISION_BF16, 2, 2, b, 2, &fb));
    for (int i = 0; i < 6; i++) c[i] = NAN; /* not read */
    CHECK_OK(atomo__product(false, false, 3, 2, 2, 1, &fa, &fb, 0, c, 2));
    CHECK(c[0] == INFINITY && isnan(c[1]) && isnan(c[2]) && isnan(c[3]));
    CHECK(c[4] > 2.9e38f && c[4] < 3.1e38f && c[5] == 1);
    atomo__factor_free(&fa);
    atomo__factor_free(&fb);
}

/* Many threads with one shape get the bits that one thread gets. */
static void in_parallel(void)
{
    enum { N = 48, TIMES = 64 };
    static float a[N * N], one[N * N], many[TIMES][N * N];
    for (int i = 0; i < N * N; i++) a[i] = value(i);
    atomo__factor f = {0};
    CHECK_OK(atomo__factor_make(ATOMO_PRECISION_BF16, N, N, a, N, &f));
    CHECK_OK(atomo__product(false, true, N, N, N, 1, &f, &f, 0, one, N));
    int rc = 0;
#pragma omp parallel for num_threads(4) reduction(min : rc)
    for (int i = 0; i < TIMES; i++) rc = ATOMO_MIN(rc, atomo__product(false, true, N, N, N, 1, &f, &f, 0, many[i], N));
    CHECK_OK(rc);
    for (int i = 0; i < TIMES; i++) CHECK(memcmp(many[i], one, sizeof one) == 0);
    atomo__factor_free(&f);
}

int main(void)
{
    RUN(rounding);
    RUN(rounding_is_nearest);
    RUN(products);
    RUN(not_finite);
    RUN(in_parallel);
    return check_done();
}
