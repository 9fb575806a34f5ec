/* test_kernels.c - elementwise operations, reductions, indexing and matrix products against loops written out here, on
 * odd shapes, broadcast and permuted views. */
#include "check.h"
#include "tensor/tensor.h"

static atomo_tensor *random_tensor(int ndim, const double *shape)
{
    atomo_tensor *t = NULL;
    CHECK_OK(atomo_tensor_new(ATOMO_F32, ndim, shape, &t));
    CHECK_OK(atomo_fill_normal(t, 0, 1));
    return t;
}

/* Element (i, j, k) of a view of up to three dimensions, broadcast: index modulo the size. */
static float at(const atomo_tensor *t, int i, int j, int k)
{
    const int index[3] = {i, j, k};
    const float *p = t->data;
    for (int d = 0; d < t->ndim; d++) p += (index[3 - t->ndim + d] % (int)t->shape[d]) * (int)t->stride[d];
    return *p;
}

static float reference(int op, float x, float y)
{
    switch (op) {
    case ATOMO_ADD:
        return x + y;
    case ATOMO_SUB:
        return x - y;
    case ATOMO_MUL:
        return x * y;
    case ATOMO_DIV:
        return x / y;
    case ATOMO_POW:
        return powf(x, y);
    case ATOMO_MAXIMUM:
        return fmaxf(x, y);
    case ATOMO_MINIMUM:
        return fminf(x, y);
    case ATOMO_EQ:
        return x == y;
    case ATOMO_NE:
        return x != y;
    case ATOMO_LT:
        return x < y;
    case ATOMO_LE:
        return x <= y;
    case ATOMO_GT:
        return x > y;
    case ATOMO_WHERE:
        return y != 0 ? x : 0;
    case ATOMO_UNLESS:
        return y == 0 ? x : 0;
    case ATOMO_EITHER: {
        uint32_t u, v;
        memcpy(&u, &x, sizeof u);
        memcpy(&v, &y, sizeof v);
        u |= v;
        memcpy(&x, &u, sizeof x);
        return x;
    }
    case ATOMO_REMAINDER:
        return (float)((double)x - floor((double)x / (double)y) * (double)y);
    case ATOMO_QUOTIENT:
        return (float)floor((double)x / (double)y);
    default:
        return x >= y;
    }
}

static void same(float got, float want, bool *ok)
{
    if (!(got == want || (got != got && want != want))) *ok = false;
}

/* Every binary operation on every pair of: full tensor, row, column, one element, permuted view. */
static void binaries(void)
{
    const double shapes[][3] = {{5, 3, 17}, {1, 3, 17}, {5, 1, 1}, {1, 1, 1}, {5, 3, 1}, {1, 1, 17}};
    atomo_tensor *t[8];
    int n = 0;
    for (; n < 6; n++) t[n] = random_tensor(3, shapes[n]);
    atomo_tensor *base = random_tensor(3, (double[]){17, 5, 3});
    t[n] = NULL;
    CHECK_OK(atomo_tensor_view(base, 3, shapes[0], (double[]){3, 1, 15}, 0, &t[n++]));
    t[n++] = random_tensor(1, (double[]){17});
    for (int op = 0; op < ATOMO_BINARY_COUNT; op++)
        for (int x = 0; x < n; x++)
            for (int y = 0; y < n; y++) {
                atomo_tensor *out = NULL;
                if (!CHECK_OK(atomo_binary(op, t[x], t[y], &out))) continue;
                bool ok = true;
                int s[3] = {1, 1, 1};
                for (int d = 0; d < out->ndim; d++) s[3 - out->ndim + d] = (int)out->shape[d];
                for (int i = 0; i < s[0]; i++)
                    for (int j = 0; j < s[1]; j++)
                        for (int k = 0; k < s[2]; k++)
                            same(at(out, i, j, k), reference(op, at(t[x], i, j, k), at(t[y], i, j, k)), &ok);
                CHECK(ok);
                atomo_tensor_free(out);
            }
    for (int i = 0; i < n; i++) atomo_tensor_free(t[i]);
    atomo_tensor_free(base);
}

static void integers(void)
{
    const double n = 4;
    const int32_t a[4] = {INT32_MAX, INT32_MIN, -7, 65536}, b[4] = {1, -1, 3, 65536};
    atomo_tensor *x = NULL, *y = NULL, *out = NULL;
    CHECK_OK(atomo_tensor_new(ATOMO_I32, 1, &n, &x));
    CHECK_OK(atomo_tensor_new(ATOMO_I32, 1, &n, &y));
    CHECK_OK(atomo_fill_bytes(x, a, sizeof a));
    CHECK_OK(atomo_fill_bytes(y, b, sizeof b));
    CHECK_OK(atomo_binary(ATOMO_ADD, x, y, &out)); /* wraps around */
    CHECK(atomo__i32(out)[0] == INT32_MIN && atomo__i32(out)[1] == INT32_MAX && atomo__i32(out)[2] == -4);
    CHECK_OK(atomo_binary(ATOMO_MUL, x, y, &out));
    CHECK(atomo__i32(out)[2] == -21 && atomo__i32(out)[3] == 0);
    CHECK_OK(atomo_binary(ATOMO_REMAINDER, x, y, &out)); /* of b's sign; INT32_MIN % -1 is 0 */
    CHECK(atomo__i32(out)[0] == 0 && atomo__i32(out)[1] == 0 && atomo__i32(out)[2] == 2 && atomo__i32(out)[3] == 0);
    CHECK_STATUS(atomo_binary(ATOMO_DIV, x, y, &out), ATOMO_EDTYPE, "i32");
    CHECK_STATUS(atomo_scalar(ATOMO_ADD, x, 0.5, 0, &out), ATOMO_EARG, "0.5 is no i32");
    CHECK_STATUS(atomo_scalar(ATOMO_ADD, x, 1e10, 0, &out), ATOMO_EARG, "no i32");
    CHECK_STATUS(atomo_scalar(ATOMO_ADD, x, NAN, 0, &out), ATOMO_EARG, "no i32");
    atomo_tensor_free(x);
    atomo_tensor_free(y);
    atomo_tensor_free(out);
}

/* Sums over each dimension of a permuted view, lengths around the 16 lanes; extremes with ties and NaN. */
static void reductions(void)
{
    for (int len = 1; len <= 49; len += 4) {
        atomo_tensor *base = random_tensor(3, (double[]){len, 3, 5}), *v = NULL;
        CHECK_OK(atomo_tensor_view(base, 3, (double[]){5, len, 3}, (double[]){1, 15, 5}, 0, &v));
        const int s[3] = {5, len, 3};
        for (int dim = -1; dim < 3; dim++)
            for (int op = 0; op < ATOMO_REDUCE_COUNT; op++) {
                atomo_tensor *out = NULL;
                if (!CHECK_OK(atomo_reduce(op, v, dim, 1, &out))) continue;
                bool ok = true;
                const int n[3] = {dim < 0 || dim == 0 ? 1 : s[0], dim < 0 || dim == 1 ? 1 : s[1],
                                  dim < 0 || dim == 2 ? 1 : s[2]};
                for (int o = 0; o < n[0] * n[1] * n[2]; o++) {
                    const int oi = o / (n[1] * n[2]), oj = o / n[2] % n[1], ok_ = o % n[2];
                    double sum = 0, most = -INFINITY, least = INFINITY;
                    int where_most = 0, where_least = 0, seen = 0;
                    for (int i = n[0] == 1 && s[0] > 1 ? 0 : oi; i < (n[0] == 1 ? s[0] : oi + 1); i++)
                        for (int j = n[1] == 1 && s[1] > 1 ? 0 : oj; j < (n[1] == 1 ? s[1] : oj + 1); j++)
                            for (int k = n[2] == 1 && s[2] > 1 ? 0 : ok_; k < (n[2] == 1 ? s[2] : ok_ + 1);
                                 k++, seen++) {
                                double x = (double)at(v, i, j, k);
                                sum += x;
                                if (x > most) most = x, where_most = seen;
                                if (x < least) least = x, where_least = seen;
                            }
                    const double want[] = {sum, sum / seen, most, least, where_most, where_least};
                    double got = op >= ATOMO_ARGMAX ? atomo__i32(out)[o] : (double)check_f32(out)[o];
                    ok = ok && fabs(got - want[op]) <= 1e-6 * (1 + fabs(want[op]));
                }
                CHECK(ok);
                atomo_tensor_free(out);
            }
        atomo_tensor_free(v);
        atomo_tensor_free(base);
    }
    const float ties[] = {1, 3, 3, -1, -1}, broken[] = {1, 9, NAN, 3, NAN};
    atomo_tensor *t = check_tensor(5, -1), *out = NULL;
    CHECK_OK(atomo_fill_bytes(t, ties, sizeof ties));
    CHECK_OK(atomo_reduce(ATOMO_ARGMAX, t, 0, 0, &out));
    CHECK(atomo__i32(out)[0] == 1);
    CHECK_OK(atomo_reduce(ATOMO_ARGMIN, t, 0, 0, &out));
    CHECK(atomo__i32(out)[0] == 3);
    CHECK_OK(atomo_fill_bytes(t, broken, sizeof broken));
    CHECK_OK(atomo_reduce(ATOMO_ARGMAX, t, -1, 0, &out));
    CHECK(atomo__i32(out)[0] == 2);
    double count, first;
    CHECK_OK(atomo_count_nonfinite(t, &count, &first));
    CHECK(count == 2 && first == 2);
    atomo_tensor_free(t);
    atomo_tensor_free(out);
}

static void empty_and_wrong(void)
{
    atomo_tensor *none = check_tensor(0, 3), *out = NULL, *t = check_tensor(2, 3);
    CHECK_OK(atomo_reduce(ATOMO_SUM, none, 0, 0, &out));
    CHECK(out->numel == 3 && check_f32(out)[0] == 0 && check_f32(out)[2] == 0);
    atomo_tensor_free(out);
    out = NULL;
    CHECK_STATUS(atomo_reduce(ATOMO_MEAN, none, 0, 0, &out), ATOMO_ESHAPE, "mean: nothing to reduce in [0,3]");
    CHECK_STATUS(atomo_reduce(ATOMO_MAX_OF, none, -1, 0, &out), ATOMO_ESHAPE, "max");
    CHECK_STATUS(atomo_reduce(ATOMO_SUM, t, 2, 0, &out), ATOMO_EARG, "sum: dimension 3 of a tensor with 2");
    CHECK_STATUS(atomo_reduce(99, t, 0, 0, &out), ATOMO_EARG, "unknown operation 99");
    CHECK_STATUS(atomo_binary(-1, t, t, &out), ATOMO_EARG, "unknown operation -1");
    CHECK_STATUS(atomo_unary(ATOMO_UNARY_COUNT, t, &out), ATOMO_EARG, "unknown operation");
    CHECK_STATUS(atomo_binary(ATOMO_ADD, t, none, &out), ATOMO_ESHAPE, "[2,3] and [0,3] do not broadcast");
    CHECK_STATUS(atomo_sum_to(t, none, &out), ATOMO_ESHAPE, "sum_to");
    CHECK(out == NULL);
    atomo_tensor *row = check_tensor(1, 3); /* a sum goes down in size, never up */
    CHECK_STATUS(atomo_sum_to(row, t, &out), ATOMO_ESHAPE, "[2,3] does not broadcast to [1,3]");
    out = check_tensor(4, -1);
    CHECK_STATUS(atomo_binary(ATOMO_ADD, t, t, &out), ATOMO_ESHAPE, "output is f32 [4], expected f32 [2,3]");
    double p;
    CHECK_STATUS(atomo_norm(t, 0, &p), ATOMO_EARG, "p = 0");
    CHECK_STATUS(atomo_norm(t, NAN, &p), ATOMO_EARG, "norm");
    CHECK_STATUS(atomo_dot(t, out, &p), ATOMO_ESHAPE, "[2,3] and [4]");
    CHECK_STATUS(atomo_clamp(t, 1, 0, &out), ATOMO_EARG, "lower bound 1 above upper bound 0");
    atomo_tensor_free(row);
    atomo_tensor_free(none);
    atomo_tensor_free(out);
    atomo_tensor_free(t);
}

static void sums_down(void)
{
    const double to[][3] = {{5, 3, 17}, {1, 3, 17}, {5, 1, 1}, {1, 1, 1}, {5, 1, 17}, {1, 3, 1}};
    atomo_tensor *t = random_tensor(3, to[0]);
    for (size_t c = 0; c < sizeof to / sizeof *to; c++) {
        atomo_tensor *like = random_tensor(3, to[c]), *out = NULL;
        double want[5 * 3 * 17] = {0}, worst = 0;
        CHECK_OK(atomo_sum_to(t, like, &out));
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 3; j++)
                for (int k = 0; k < 17; k++) {
                    int o = (i % (int)to[c][0] * (int)to[c][1] + j % (int)to[c][1]) * (int)to[c][2] + k % (int)to[c][2];
                    want[o] += (double)at(t, i, j, k);
                }
        for (int o = 0; o < (int)out->numel; o++) worst = fmax(worst, fabs(want[o] - (double)check_f32(out)[o]));
        CHECK(worst < 1e-4);
        atomo_tensor_free(like);
        atomo_tensor_free(out);
    }
    atomo_tensor_free(t);
}

/* All strides that BLAS can and cannot take, batches, 1-D operands, accumulation. */
static void products(void)
{
    const int m = 7, k = 5, n = 3;
    for (int kind = 0; kind < 16; kind++) {
        atomo_tensor *a = random_tensor(2, (double[]){40, 40}), *b = random_tensor(2, (double[]){40, 40});
        atomo_tensor *va = NULL, *vb = NULL, *out = NULL;
        const double strides[4][2] = {{40, 1}, {1, 40}, {80, 2}, {0, 1}};
        CHECK_OK(atomo_tensor_view(a, 2, (double[]){m, k}, strides[kind & 3], 3, &va));
        CHECK_OK(atomo_tensor_view(b, 2, (double[]){k, n}, strides[kind >> 2], 5, &vb));
        CHECK_OK(atomo_matmul(va, vb, 0, ATOMO_PRECISION_FP32, &out));
        CHECK_OK(atomo_matmul(va, vb, 1, ATOMO_PRECISION_FP32, &out)); /* twice: out = 2 a b */
        double worst = 0;
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                double want = 0;
                for (int l = 0; l < k; l++) want += 2 * (double)at(va, 0, i, l) * (double)at(vb, 0, l, j);
                worst = fmax(worst, fabs(want - (double)check_f32(out)[i * n + j]));
            }
        CHECK(worst < 1e-4);
        atomo_tensor_free(va);
        atomo_tensor_free(vb);
        atomo_tensor_free(out);
        atomo_tensor_free(a);
        atomo_tensor_free(b);
    }
    atomo_tensor *a = random_tensor(2, (double[]){4, 6}), *x = random_tensor(1, (double[]){6}), *out = NULL;
    CHECK_OK(atomo_matmul(a, x, 0, ATOMO_PRECISION_FP32, &out));
    CHECK(out->ndim == 1 && out->shape[0] == 4);
    CHECK_STATUS(atomo_matmul(x, a, 0, ATOMO_PRECISION_FP32, &out), ATOMO_ESHAPE, "[6] x [4,6] do not fit");
    atomo_tensor_free(a);
    atomo_tensor_free(x);
    atomo_tensor_free(out);
}

static void indexing(void)
{
    const double n = 3;
    const int32_t good[3] = {2, 0, 2}, bad[3] = {0, 3, 0};
    atomo_tensor *t = random_tensor(2, (double[]){3, 4}), *index = NULL, *out = NULL, *acc = check_tensor(3, 4);
    CHECK_OK(atomo_tensor_new(ATOMO_I32, 1, &n, &index));
    CHECK_OK(atomo_fill_bytes(index, good, sizeof good));
    CHECK_OK(atomo_index_select(t, 0, index, &out));
    for (int i = 0; i < 12; i++) CHECK(check_f32(out)[i] == check_f32(t)[good[i / 4] * 4 + i % 4]);
    CHECK_OK(atomo_fill(acc, 0));
    CHECK_OK(atomo_index_add(acc, 0, index, out)); /* row 2 twice */
    for (int i = 0; i < 4; i++) CHECK(check_f32(acc)[8 + i] == 2 * check_f32(t)[8 + i] && check_f32(acc)[4 + i] == 0);
    CHECK_OK(atomo_fill_bytes(index, bad, sizeof bad));
    CHECK_STATUS(atomo_index_select(t, 0, index, &out), ATOMO_EARG,
                 "index_select: index 4 at position 2 is outside 1 to 3");
    CHECK_STATUS(atomo_index_add(acc, 0, index, out), ATOMO_EARG, "index_add: index 4 at position 2");
    CHECK_STATUS(atomo_index_select(t, 2, index, &out), ATOMO_EARG, "dimension 3 of a tensor with 2");
    CHECK_STATUS(atomo_index_select(t, 0, t, &out), ATOMO_EDTYPE, "index_select: index is f32, expected i32");
    atomo_tensor_free(t);
    atomo_tensor_free(index);
    atomo_tensor_free(out);
    atomo_tensor_free(acc);
}

/* Running sums and products of a permuted view [2,3], and what is refused. */
static void scans(void)
{
    const float values[6] = {1, 4, 2, 0, 3, 6};
    const int32_t large[2] = {INT32_MAX, 2};
    const double two = 2;
    atomo_tensor *base = check_tensor(3, 2), *v = NULL, *out = NULL, *whole = NULL, *g = check_tensor(2, -1);
    CHECK_OK(atomo_fill_bytes(base, values, sizeof values));
    CHECK_OK(atomo_tensor_view(base, 2, (double[]){2, 3}, (double[]){1, 2}, 0, &v)); /* 1 2 3; 4 0 6 */
    CHECK_OK(atomo_cumsum(v, 1, 0, &out));
    CHECK(check_f32(out)[0] == 1 && check_f32(out)[2] == 6 && check_f32(out)[5] == 10);
    CHECK_OK(atomo_cumsum(v, 0, 1, &out));
    CHECK(check_f32(out)[0] == 5 && check_f32(out)[3] == 4 && check_f32(out)[2] == 9);
    atomo_tensor_free(out), out = NULL;
    CHECK_OK(atomo_prod(v, 1, 0, &out));
    CHECK(out->numel == 2 && check_f32(out)[0] == 6 && check_f32(out)[1] == 0);
    CHECK_OK(atomo_prod(v, -1, 1, &whole));
    CHECK(whole->ndim == 2 && check_f32(whole)[0] == 0);
    atomo_tensor_free(out), out = NULL;
    CHECK_STATUS(atomo_prod_backward(v, 1, g, &out), ATOMO_ESHAPE, "prod: tensor [2,3] is not contiguous");
    CHECK_OK(atomo_fill(g, 2));
    CHECK_OK(atomo_prod_backward(base, -1, whole, &out)); /* gy = 0 */
    CHECK(check_f32(out)[3] == 0);
    CHECK_OK(atomo_fill(whole, 2));
    CHECK_OK(atomo_prod_backward(base, -1, whole, &out));
    CHECK(check_f32(out)[3] == 2 * 1 * 4 * 2 * 3 * 6 && check_f32(out)[0] == 0);
    CHECK_STATUS(atomo_prod_backward(base, 0, whole, &out), ATOMO_ESHAPE, "prod: gy is [1,1], the tensor [3,2]");
    CHECK_STATUS(atomo_cumsum(v, 2, 0, &out), ATOMO_EARG, "cumsum: dimension 3 of a tensor with 2");
    CHECK_STATUS(atomo_cumsum(v, -1, 0, &out), ATOMO_EARG, "cumsum: dimension 0");
    atomo_tensor_free(whole), whole = NULL;
    CHECK_OK(atomo_tensor_new(ATOMO_I32, 1, &two, &whole));
    CHECK_OK(atomo_fill_bytes(whole, large, sizeof large));
    atomo_tensor_free(out), out = NULL;
    CHECK_STATUS(atomo_cumsum(whole, 0, 0, &out), ATOMO_ELIMIT, "cumsum: 2147483649 does not fit i32");
    CHECK_STATUS(atomo_prod(whole, 0, 0, &out), ATOMO_ELIMIT, "prod: 4294967294 does not fit i32");
    CHECK_STATUS(atomo_cumprod(whole, 0, &out), ATOMO_ELIMIT, "cumprod: 4294967294 does not fit i32");
    CHECK(out == NULL);
    CHECK_OK(atomo_cumprod(v, 1, &out));
    CHECK(check_f32(out)[1] == 2 && check_f32(out)[2] == 6 && check_f32(out)[3] == 4 && check_f32(out)[5] == 0);
    atomo_tensor_free(out), out = NULL;
    CHECK_OK(atomo_cumprod_backward(base, 0, base, &out)); /* columns 1 2 3 and 4 0 6, and so are their gradients */
    CHECK(check_f32(out)[0] == 1 + 2 * (2 + 3 * 3) && check_f32(out)[2] == 2 + 3 * 3 && check_f32(out)[4] == 2 * 3);
    CHECK(check_f32(out)[1] == 4 && check_f32(out)[3] == 4 * 6 * 6 && check_f32(out)[5] == 0);
    CHECK_STATUS(atomo_cumprod_backward(base, 0, v, &out), ATOMO_ESHAPE, "cumprod: gy [2,3] is not contiguous");
    CHECK_STATUS(atomo_cumprod_backward(base, 0, g, &out), ATOMO_ESHAPE, "cumprod: gy is [2], the tensor [3,2]");
    CHECK_STATUS(atomo_cumprod(v, 2, &out), ATOMO_EARG, "cumprod: dimension 3 of a tensor with 2");
    CHECK_STATUS(atomo_cumprod(v, -1, &out), ATOMO_EARG, "cumprod: dimension 0");
    atomo_tensor_free(out);
    atomo_tensor_free(base), atomo_tensor_free(v), atomo_tensor_free(whole), atomo_tensor_free(g);
}

int main(void)
{
    atomo_manual_seed(3);
    RUN(binaries);
    RUN(integers);
    RUN(reductions);
    RUN(empty_and_wrong);
    RUN(sums_down);
    RUN(products);
    RUN(indexing);
    RUN(scans);
    return check_done();
}
