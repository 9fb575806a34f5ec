/* elementwise.c - unary, binary and scalar operations with broadcasting, on f32; +, -, *, max, min, remainders and
 * comparisons on i32 too. Each operation is one entry in a table of row kernels; iterator.h handles strides. */
#include "tensor/iterator.h"
#include <math.h>
#include <string.h>

/* ---- row kernels: o[i] = op(a[i*sa], b[i*sb]); o is contiguous ------------------------------------------------ */

#define BINARY_ROW(name, T, O, expr)                                                                                   \
    ATOMO_CLONES static void name(const T *a, int64_t sa, const T *b, int64_t sb, O *o, int64_t n)                     \
    {                                                                                                                  \
        if (sa == 1 && sb == 1) {                                                                                      \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                T x = a[i], y = b[i];                                                                                  \
                o[i] = (O)(expr);                                                                                      \
            }                                                                                                          \
        } else if (sa == 1 && sb == 0) {                                                                               \
            T y = b[0];                                                                                                \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                T x = a[i];                                                                                            \
                o[i] = (O)(expr);                                                                                      \
            }                                                                                                          \
        } else {                                                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                T x = a[i * sa], y = b[i * sb];                                                                        \
                o[i] = (O)(expr);                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }
#define BINARIES(X)                                                                                                    \
    X(ADD, add, x + y)                                                                                                 \
    X(SUB, sub, x - y)                                                                                                 \
    X(MUL, mul, x *y)                                                                                                  \
    X(MAXIMUM, maximum, x > y || x != x ? x : y)                                                                       \
    X(MINIMUM, minimum, x < y || x != x ? x : y)
#define COMPARISONS(X)                                                                                                 \
    X(EQ, eq, x == y) X(NE, ne, x != y) X(LT, lt, x < y) X(LE, le, x <= y) X(GT, gt, x > y) X(GE, ge, x >= y)
#define I32_BINARIES(X) /* + - * wrap around; unsigned, since signed overflow is undefined */                          \
    X(ADD, add, (uint32_t)x + (uint32_t)y)                                                                             \
    X(SUB, sub, (uint32_t)x - (uint32_t)y)                                                                             \
    X(MUL, mul, (uint32_t)x *(uint32_t)y)                                                                              \
    X(MAXIMUM, maximum, x > y ? x : y)                                                                                 \
    X(MINIMUM, minimum, x < y ? x : y)
#define F32_ROW(op, name, expr) BINARY_ROW(f32_##op, float, float, expr)
#define I32_ROW(op, name, expr) BINARY_ROW(i32_##op, int32_t, int32_t, expr)
#define F32_CMP(op, name, expr) BINARY_ROW(f32_##op, float, float, expr)
#define I32_CMP(op, name, expr) BINARY_ROW(i32_##op, int32_t, float, expr)
BINARIES(F32_ROW)
I32_BINARIES(I32_ROW)
COMPARISONS(F32_CMP)
COMPARISONS(I32_CMP)
F32_ROW(DIV, div, x / y)
F32_ROW(POW, pow, powf(x, y))
F32_ROW(WHERE, where, y != 0 ? x : 0.0f)
F32_ROW(UNLESS, unless, y != 0 ? 0.0f : x)

/* a or b where the other is +0, whose bits are all 0. */
static inline float either(float a, float b)
{
    uint32_t u, v;
    memcpy(&u, &a, sizeof u);
    memcpy(&v, &b, sizeof v);
    u |= v;
    memcpy(&a, &u, sizeof a);
    return a;
}
F32_ROW(EITHER, either, either(x, y))

static inline float f32_remainder(float x, float y)
{
    const float r = fmodf(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static inline int32_t i32_remainder(int32_t x, int32_t y)
{
    if (y == 0 || y == -1) return 0; /* INT32_MIN % -1 traps */
    const int32_t r = x % y;
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

/* floor(x / y), from the remainder, since x / y itself can round to the next whole number. */
static inline float quotient(float x, float y)
{
    if (y == 0) return x / y;
    const float r = fmodf(x, y), q = rintf((x - r) / y);
    return r != 0 && (r < 0) != (y < 0) ? q - 1 : q;
}
F32_ROW(REMAINDER, remainder, f32_remainder(x, y))
I32_ROW(REMAINDER, remainder, i32_remainder(x, y))
F32_ROW(QUOTIENT, quotient, quotient(x, y))

typedef void i32_row(const int32_t *, int64_t, const int32_t *, int64_t, int32_t *, int64_t);
typedef void i32_cmp(const int32_t *, int64_t, const int32_t *, int64_t, float *, int64_t);
static const struct {
    const char *name;
    atomo__binary_row *f32;
    i32_row *i32;
    i32_cmp *cmp;
} binaries[ATOMO_BINARY_COUNT] = {[ATOMO_DIV] = {"div", f32_DIV, NULL, NULL},
                                  [ATOMO_POW] = {"pow", f32_POW, NULL, NULL},
                                  [ATOMO_WHERE] = {"where", f32_WHERE, NULL, NULL},
                                  [ATOMO_UNLESS] = {"unless", f32_UNLESS, NULL, NULL},
                                  [ATOMO_EITHER] = {"either", f32_EITHER, NULL, NULL},
                                  [ATOMO_REMAINDER] = {"remainder", f32_REMAINDER, i32_REMAINDER, NULL},
                                  [ATOMO_QUOTIENT] = {"quotient", f32_QUOTIENT, NULL, NULL},
#define ROW(op, name, expr) [ATOMO_##op] = {#name, f32_##op, i32_##op, NULL},
                                  BINARIES(ROW)
#undef ROW
#define ROW(op, name, expr) [ATOMO_##op] = {#name, f32_##op, NULL, i32_##op},
                                      COMPARISONS(ROW)
#undef ROW
};

static void binary_piece(int op, const atomo__iterator *it, int64_t i, const atomo_tensor *a, const atomo_tensor *b,
                         const atomo_tensor *o)
{
    const atomo_piece p = atomo__piece(it, i);
    const int64_t sa = it->stride[0][it->ndim - 1], sb = it->stride[1][it->ndim - 1];
    if (a->dtype == ATOMO_F32)
        binaries[op].f32(atomo__f32(a) + p.at[0], sa, atomo__f32(b) + p.at[1], sb, atomo__f32(o) + p.out, p.n);
    else if (binaries[op].i32)
        binaries[op].i32(atomo__i32(a) + p.at[0], sa, atomo__i32(b) + p.at[1], sb, atomo__i32(o) + p.out, p.n);
    else
        binaries[op].cmp(atomo__i32(a) + p.at[0], sa, atomo__i32(b) + p.at[1], sb, atomo__f32(o) + p.out, p.n);
}

int atomo_binary(int op, const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    ATOMO_MAKING(made, a, b);
    made.in_place = true;
    ATOMO_REQUIRE(op >= 0 && op < ATOMO_BINARY_COUNT, ATOMO_EARG, "binary: unknown operation %d", op);
    const char *name = binaries[op].name;
    ATOMO_REQUIRE(a->dtype == b->dtype, ATOMO_EDTYPE, "%s: %s and %s do not mix, convert one (t:to \"f32\")", name,
                  atomo__dtype_name(a->dtype), atomo__dtype_name(b->dtype));
    bool f32 = a->dtype == ATOMO_F32;
    ATOMO_REQUIRE(f32 || (a->dtype == ATOMO_I32 && (binaries[op].i32 || binaries[op].cmp)), ATOMO_EDTYPE,
                  "%s: does not take %s, convert it first (t:to \"f32\")", name, atomo__dtype_name(a->dtype));
    int ndim;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__broadcast_shape(a, b, name, &ndim, shape));
    ATOMO_TRY(atomo__make(&made, out, !f32 && binaries[op].i32 ? ATOMO_I32 : ATOMO_F32, ndim, shape, name));
    const atomo_tensor *const t[2] = {a, b};
    atomo__iterator it;
    atomo__iterator_init(&it, ndim, shape, 2, t);
    ATOMO_FOR(i, atomo__pieces(&it), 1, atomo__iterator_is_wide(&it), binary_piece(op, &it, i, a, b, *out));
    return atomo__made(&made, ATOMO_OK);
}

atomo__binary_row *atomo__binary_of(int op)
{
    return binaries[op].f32;
}

int atomo_scalar(int op, const atomo_tensor *a, double s, int reverse, atomo_tensor **out)
{
    union {
        float f;
        int32_t i;
    } value;
    if (a->dtype == ATOMO_I32) {
        ATOMO_REQUIRE(atomo__fits_i32(s), ATOMO_EARG, "%g is no i32; convert the tensor first (t:to \"f32\")", s);
        value.i = (int32_t)s;
    } else {
        value.f = (float)s;
    }
    atomo_tensor scalar = {.data = &value, .dtype = a->dtype, .ndim = 0, .numel = 1};
    return reverse ? atomo_binary(op, &scalar, a, out) : atomo_binary(op, a, &scalar, out);
}

/* ---- unary ------------------------------------------------------------------------------------------------------ */

/* clang-format off */
#define UNARIES(X)                                      \
    X(NEG, neg, -x)                                     \
    X(ABS, abs, fabsf(x))                               \
    X(EXP, exp, expf(x))                                \
    X(LOG, log, logf(x))                                \
    X(SQRT, sqrt, sqrtf(x))                             \
    X(SQUARE, square, x * x)                            \
    X(RECIPROCAL, reciprocal, 1.0f / x)                 \
    X(SIGN, sign, (float)((x > 0) - (x < 0)))           \
    X(FLOOR, floor, floorf(x))                          \
    X(TANH, tanh, tanhf(x))                             \
    X(SIGMOID, sigmoid, 1.0f / (1.0f + expf(-x)))       \
    X(RELU, relu, x > 0 || x != x ? x : 0.0f)           \
    X(SIN, sin, sinf(x))                                \
    X(COS, cos, cosf(x))                                \
    X(CEIL, ceil, ceilf(x))                             \
    X(ROUND, round, rintf(x))                           \
    X(TRUNC, trunc, truncf(x))
/* clang-format on */
#define UNARY_ROW(op, name, expr)                                                                                      \
    ATOMO_CLONES static void unary_##op(const float *a, int64_t sa, float *o, int64_t n)                               \
    {                                                                                                                  \
        if (sa == 1) {                                                                                                 \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                float x = a[i];                                                                                        \
                o[i] = (expr);                                                                                         \
            }                                                                                                          \
        } else {                                                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                                          \
                float x = a[i * sa];                                                                                   \
                o[i] = (expr);                                                                                         \
            }                                                                                                          \
        }                                                                                                              \
    }
UNARIES(UNARY_ROW)
static const struct {
    const char *name;
    atomo__unary_row *row;
} unaries[ATOMO_UNARY_COUNT] = {
#define ROW(op, name, expr) [ATOMO_##op] = {#name, unary_##op},
    UNARIES(ROW)
#undef ROW
};

atomo__unary_row *atomo__unary_of(int op)
{
    return unaries[op].row;
}

static void unary_piece(int op, const atomo__iterator *it, int64_t i, const atomo_tensor *a, const atomo_tensor *o)
{
    const atomo_piece p = atomo__piece(it, i);
    unaries[op].row(atomo__f32(a) + p.at[0], it->stride[0][it->ndim - 1], atomo__f32(o) + p.out, p.n);
}

int atomo_unary(int op, const atomo_tensor *a, atomo_tensor **out)
{
    ATOMO_MAKING(made, a);
    made.in_place = true;
    ATOMO_REQUIRE(op >= 0 && op < ATOMO_UNARY_COUNT, ATOMO_EARG, "unary: unknown operation %d", op);
    ATOMO_REQUIRE(a->dtype == ATOMO_F32, ATOMO_EDTYPE, "%s: tensor is %s, expected f32", unaries[op].name,
                  atomo__dtype_name(a->dtype));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, a->ndim, a->shape, unaries[op].name));
    atomo__iterator it;
    atomo__iterator_init(&it, a->ndim, a->shape, 1, &a);
    ATOMO_FOR(i, atomo__pieces(&it), 1, atomo__iterator_is_wide(&it), unary_piece(op, &it, i, a, *out));
    return atomo__made(&made, ATOMO_OK);
}

ATOMO_CLONES static void clamp_row(const float *a, float lo, float hi, float *o, int64_t n)
{
    for (int64_t i = 0; i < n; i++) o[i] = a[i] < lo ? lo : a[i] > hi ? hi : a[i];
}

int atomo_clamp(const atomo_tensor *a, double lo, double hi, atomo_tensor **out)
{
    ATOMO_MAKING(made, a);
    made.in_place = true;
    ATOMO_REQUIRE(lo <= hi, ATOMO_EARG, "clamp: lower bound %g above upper bound %g", lo, hi);
    ATOMO_REQUIRE(a->dtype == ATOMO_F32, ATOMO_EDTYPE, "clamp: tensor is %s, expected f32",
                  atomo__dtype_name(a->dtype));
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__contiguous(a, &c, &hold));
    int rc = atomo__make(&made, out, ATOMO_F32, a->ndim, a->shape, "clamp");
    if (rc == 0) clamp_row(atomo__f32(c), (float)lo, (float)hi, atomo__f32(*out), atomo__numel(a));
    atomo_tensor_free(hold);
    return atomo__made(&made, rc);
}
