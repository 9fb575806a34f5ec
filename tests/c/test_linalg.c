/* test_linalg.c - svd, eigh and qr: residuals, orthonormality and order, over all sizes up to 12 and some up to 65, for
 * random, zero, identity, rank-one, graded, duplicate, huge and tiny matrices; NaN and Inf refused by name. */
#include "check.h"
#include "tensor/tensor.h"

enum { RANDOM, ZERO, IDENTITY, RANK_ONE, GRADED, EQUAL_VALUES, HUGE_ENTRIES, TINY_ENTRIES, KINDS };
#define EPS 1.2e-7 /* of float */

static atomo_tensor *matrix(int kind, int m, int n)
{
    atomo_tensor *t = check_tensor(m, n);
    CHECK_OK(atomo_fill_normal(t, 0, 1));
    float *x = check_f32(t);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float *v = &x[i * n + j];
            switch (kind) {
            case ZERO:
                *v = 0;
                break;
            case IDENTITY:
                *v = i == j;
                break;
            case RANK_ONE:
                *v = sinf((float)i + 1) * cosf((float)j);
                break;
            case GRADED:
                *v *= powf(10, -0.2f * (float)(i + j));
                break;
            case EQUAL_VALUES:
                *v = i == j ? (i % 2 ? -3.0f : 3.0f) : 0;
                break;
            case HUGE_ENTRIES:
                *v *= 1e37f;
                break;
            case TINY_ENTRIES:
                *v *= 1e-36f;
                break;
            default:
                break;
            }
        }
    return t;
}

static double get(const atomo_tensor *t, int i, int j)
{
    return (double)check_f32(t)[i * (int)t->shape[1] + j];
}

/* The largest |entry| of q^T q - 1 (columns), or of q q^T - 1 (rows). */
static double off_orthonormal(const atomo_tensor *q, bool columns)
{
    int rows = (int)q->shape[0], cols = (int)q->shape[1], n = columns ? cols : rows, len = columns ? rows : cols;
    double worst = 0;
    for (int a = 0; a < n; a++)
        for (int b = 0; b <= a; b++) {
            double dot = 0;
            for (int i = 0; i < len; i++) dot += columns ? get(q, i, a) * get(q, i, b) : get(q, a, i) * get(q, b, i);
            worst = fmax(worst, fabs(dot - (a == b)));
        }
    return worst;
}

static double largest(const atomo_tensor *a)
{
    double x = 0;
    CHECK_OK(atomo_norm(a, INFINITY, &x));
    return x;
}

/* max |a - l diag(d) r| with r given, or transposed; d NULL: ones. */
static double residual(const atomo_tensor *a, const atomo_tensor *l, const float *d, const atomo_tensor *r,
                       bool transposed)
{
    double worst = 0;
    for (int i = 0; i < (int)a->shape[0]; i++)
        for (int j = 0; j < (int)a->shape[1]; j++) {
            double sum = 0;
            for (int k = 0; k < (int)l->shape[1]; k++)
                sum += get(l, i, k) * (d ? (double)d[k] : 1) * (transposed ? get(r, j, k) : get(r, k, j));
            worst = fmax(worst, fabs(sum - get(a, i, j)));
        }
    return worst;
}

static void one_svd(int kind, int m, int n)
{
    atomo_tensor *a = matrix(kind, m, n), *u = NULL, *s = NULL, *vt = NULL;
    if (CHECK_OK(atomo_svd(a, &u, &s, &vt))) {
        const int k = ATOMO_MIN(m, n);
        const double tol = 20 * EPS * (m + n);
        CHECK(u->shape[0] == m && u->shape[1] == k && s->shape[0] == k && vt->shape[0] == k && vt->shape[1] == n);
        CHECK(off_orthonormal(u, true) < tol);
        CHECK(off_orthonormal(vt, false) < tol);
        CHECK(residual(a, u, check_f32(s), vt, false) <= tol * fmax(largest(a), (double)check_f32(s)[0]));
        bool sorted = check_f32(s)[k - 1] >= 0;
        for (int i = 1; i < k; i++) sorted = sorted && check_f32(s)[i] <= check_f32(s)[i - 1];
        CHECK(sorted);
        if (kind == EQUAL_VALUES || kind == IDENTITY)
            CHECK_NEAR((double)check_f32(s)[k - 1], kind == IDENTITY ? 1 : 3, 1e-5);
        if (kind == RANK_ONE && k > 1) CHECK((double)check_f32(s)[1] < tol * (double)check_f32(s)[0]);
    }
    atomo_tensor_free(a);
    atomo_tensor_free(u);
    atomo_tensor_free(s);
    atomo_tensor_free(vt);
}

static void one_eigh(int kind, int n)
{
    atomo_tensor *a = matrix(kind, n, n), *w = NULL, *v = NULL;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) check_f32(a)[i * n + j] = check_f32(a)[j * n + i];
    if (CHECK_OK(atomo_eigh(a, &w, &v))) {
        const double tol = 40 * EPS * n;
        CHECK(off_orthonormal(v, true) < tol);
        CHECK(residual(a, v, check_f32(w), v, true) <= tol * n * fmax(largest(a), 1e-44));
        bool sorted = true;
        for (int i = 1; i < n; i++) sorted = sorted && check_f32(w)[i] >= check_f32(w)[i - 1];
        CHECK(sorted);
    }
    atomo_tensor_free(a);
    atomo_tensor_free(w);
    atomo_tensor_free(v);
}

static void one_qr(int kind, int m, int n)
{
    atomo_tensor *a = matrix(kind, m, n), *q = NULL, *r = NULL;
    if (CHECK_OK(atomo_qr(a, &q, &r))) {
        const double tol = 20 * EPS * (m + n);
        CHECK(off_orthonormal(q, true) < tol);
        CHECK(residual(a, q, NULL, r, false) <= tol * sqrt(m) * fmax(largest(a), 1e-44));
        bool upper = true;
        for (int i = 0; i < (int)r->shape[0]; i++)
            for (int j = 0; j < i && j < n; j++) upper = upper && get(r, i, j) == 0;
        CHECK(upper);
    }
    atomo_tensor_free(a);
    atomo_tensor_free(q);
    atomo_tensor_free(r);
}

/* Calls one(kind, m, n) for every kind and size. */
static void all_sizes(void one(int, int, int))
{
    const int large[] = {16, 17, 31, 40, 65};
    for (int kind = 0; kind < KINDS; kind++) {
        for (int m = 1; m <= 12; m++)
            for (int n = 1; n <= 12; n++) one(kind, m, n);
        for (int i = 0; i < 5; i++) one(kind, large[i], large[(i + 2) % 5]);
    }
}

static void svd_of_all(void)
{
    all_sizes(one_svd);
}

static void qr_of_all(void)
{
    all_sizes(one_qr);
}

static void square(int kind, int m, int n)
{
    if (m == n || m > 12) one_eigh(kind, m);
}

static void eigh_of_all(void)
{
    all_sizes(square);
}

/* Non-finite entries in every position are refused before LAPACK is called (it would hang on Inf); the text has the
 * position. */
static void refused(void)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    atomo_tensor *t[3] = {NULL, NULL, NULL}, *a = matrix(RANDOM, 4, 4);
    for (int at = 0; at < 16; at++)
        for (int b = 0; b < 3; b++) {
            float keep = check_f32(a)[at];
            char where[40];
            snprintf(where, sizeof where, "row %d column %d", at / 4 + 1, at % 4 + 1);
            check_f32(a)[at] = bad[b];
            CHECK_STATUS(atomo_svd(a, &t[0], &t[1], &t[2]), ATOMO_ENONFINITE, where);
            CHECK_STATUS(atomo_eigh(a, &t[0], &t[1]), ATOMO_ENONFINITE, where);
            CHECK_STATUS(atomo_qr(a, &t[0], &t[1]), ATOMO_ENONFINITE, where);
            check_f32(a)[at] = keep;
        }
    atomo_tensor *empty = check_tensor(0, 3), *wide = check_tensor(2, 3), *row = check_tensor(3, -1);
    CHECK_STATUS(atomo_svd(empty, &t[0], &t[1], &t[2]), ATOMO_ESHAPE, "svd: matrix [0,3] is empty");
    CHECK_STATUS(atomo_qr(empty, &t[0], &t[1]), ATOMO_ESHAPE, "qr: matrix [0,3] is empty");
    CHECK_STATUS(atomo_eigh(wide, &t[0], &t[1]), ATOMO_ESHAPE, "eigh: matrix is [2,3], expected a square one");
    CHECK_STATUS(atomo_svd(row, &t[0], &t[1], &t[2]), ATOMO_ESHAPE, "svd: tensor is f32 [3], expected an f32 matrix");
    CHECK(!t[0] && !t[1] && !t[2]); /* nothing is left behind by a failure */
    atomo_tensor_free(a);
    atomo_tensor_free(empty);
    atomo_tensor_free(wide);
    atomo_tensor_free(row);
}

int main(void)
{
    atomo_manual_seed(4);
    RUN(svd_of_all);
    RUN(eigh_of_all);
    RUN(qr_of_all);
    RUN(refused);
    return check_done();
}
