/* elementwise.c - unary, binary and scalar operations with broadcasting, f32 (and i32 where it makes sense).
 * Each operation is one row of a table of row kernels; walk.h does the strides. */
#include "tensor/walk.h"
#include <math.h>

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
    X(ADD, x + y) X(SUB, x - y) X(MUL, x *y) X(MAXIMUM, x > y || x != x ? x : y) X(MINIMUM, x < y || x != x ? x : y)
#define COMPARISONS(X)  X(EQ, x == y) X(NE, x != y) X(LT, x < y) X(LE, x <= y) X(GT, x > y) X(GE, x >= y)
#define I32_BINARIES(X) /* + - * wrap around: in C a signed overflow would be undefined */                             \
    X(ADD, (uint32_t)x + (uint32_t)y)                                                                                  \
    X(SUB, (uint32_t)x - (uint32_t)y)                                                                                  \
    X(MUL, (uint32_t)x *(uint32_t)y) X(MAXIMUM, x > y ? x : y) X(MINIMUM, x < y ? x : y)
#define F32_ROW(op, expr) BINARY_ROW(f32_##op, float, float, expr)
#define I32_ROW(op, expr) BINARY_ROW(i32_##op, int32_t, int32_t, expr)
#define F32_CMP(op, expr) BINARY_ROW(f32_##op, float, float, expr)
#define I32_CMP(op, expr) BINARY_ROW(i32_##op, int32_t, float, expr)
BINARIES(F32_ROW)
I32_BINARIES(I32_ROW)
COMPARISONS(F32_CMP)
COMPARISONS(I32_CMP)
F32_ROW(DIV, x / y)
F32_ROW(POW, powf(x, y))

typedef void i32_row(const int32_t *, int64_t, const int32_t *, int64_t, int32_t *, int64_t);
typedef void i32_cmp(const int32_t *, int64_t, const int32_t *, int64_t, float *, int64_t);
static const struct {
    const char *name;
    atomo__binary_row *f32;
    i32_row *i32;
    i32_cmp *cmp;
} binaries[ATOMO_BINARY_COUNT] = {[ATOMO_DIV] = {"div", f32_DIV, NULL, NULL},
                                  [ATOMO_POW] = {"pow", f32_POW, NULL, NULL},
#define ROW(op, expr) [ATOMO_##op] = {#op, f32_##op, i32_##op, NULL},
                                  BINARIES(ROW)
#undef ROW
#define ROW(op, expr) [ATOMO_##op] = {#op, f32_##op, NULL, i32_##op},
                                      COMPARISONS(ROW)
#undef ROW
};

int atomo_binary(int op, const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    ATOMO_REQUIRE(op >= 0 && op < ATOMO_BINARY_COUNT, ATOMO_EARG, "binary: unknown operation %d", op);
    const char *name = binaries[op].name;
    ATOMO_REQUIRE(a->dtype == b->dtype, ATOMO_EDTYPE, "%s: %s and %s do not mix, convert one (t:to \"f32\")", name,
                  atomo__dtype_name(a->dtype), atomo__dtype_name(b->dtype));
    bool f32 = a->dtype == ATOMO_F32;
    ATOMO_REQUIRE(f32 || (a->dtype == ATOMO_I32 && (binaries[op].i32 || binaries[op].cmp)), ATOMO_EDTYPE,
                  "%s: does not take %s", name, atomo__dtype_name(a->dtype));
    int ndim;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__broadcast_shape(a, b, name, &ndim, shape));
    ATOMO_TRY(atomo__output(out, !f32 && binaries[op].i32 ? ATOMO_I32 : ATOMO_F32, ndim, shape, name));
    const atomo_tensor *const t[2] = {a, b};
    atomo_walk w;
    atomo__walk_init(&w, ndim, shape, 2, t);
    const int64_t sa = w.stride[0][w.ndim - 1], sb = w.stride[1][w.ndim - 1];
    const int64_t chunk = w.rows == 1 ? 16384 : w.row, chunks = w.rows == 1 ? (w.row + chunk - 1) / chunk : w.rows;
    char *o = (*out)->data;
#pragma omp parallel for if (w.rows * w.row > ATOMO_PARALLEL_MIN)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t at[3], i = w.rows == 1 ? c * chunk : 0, n = w.rows == 1 ? ATOMO_MIN(chunk, w.row - i) : w.row;
        atomo__walk_row(&w, w.rows == 1 ? 0 : c, at);
        int64_t ia = at[0] + i * sa, ib = at[1] + i * sb, io = w.rows == 1 ? i : c * w.row;
        if (f32)
            binaries[op].f32(atomo__f32(a) + ia, sa, atomo__f32(b) + ib, sb, (float *)(void *)o + io, n);
        else if (binaries[op].i32)
            binaries[op].i32(atomo__i32(a) + ia, sa, atomo__i32(b) + ib, sb, (int32_t *)(void *)o + io, n);
        else
            binaries[op].cmp(atomo__i32(a) + ia, sa, atomo__i32(b) + ib, sb, (float *)(void *)o + io, n);
    }
    return ATOMO_OK;
}

atomo__binary_row *atomo__binary_of(int op)
{
    return binaries[op].f32;
}

static bool fits_i32(double v)
{
    return v >= INT32_MIN && v <= INT32_MAX && v == (double)(int32_t)v;
}

int atomo_scalar(int op, const atomo_tensor *a, double s, int reverse, atomo_tensor **out)
{
    union {
        float f;
        int32_t i;
    } value;
    if (a->dtype == ATOMO_I32) {
        ATOMO_REQUIRE(fits_i32(s), ATOMO_EARG, "%g is no i32; convert the tensor first (t:to \"f32\")", s);
        value.i = (int32_t)s;
    } else {
        value.f = (float)s;
    }
    atomo_tensor scalar = {.data = &value, .dtype = a->dtype, .ndim = 0, .numel = 1};
    return reverse ? atomo_binary(op, &scalar, a, out) : atomo_binary(op, a, &scalar, out);
}

/* ---- unary ------------------------------------------------------------------------------------------------------ */

/* clang-format off */
#define UNARIES(X)                          \
    X(NEG, -x)                              \
    X(ABS, fabsf(x))                        \
    X(EXP, expf(x))                         \
    X(LOG, logf(x))                         \
    X(SQRT, sqrtf(x))                       \
    X(SQUARE, x * x)                        \
    X(RECIPROCAL, 1.0f / x)                 \
    X(SIGN, (float)((x > 0) - (x < 0)))     \
    X(FLOOR, floorf(x))                     \
    X(TANH, tanhf(x))                       \
    X(SIGMOID, 1.0f / (1.0f + expf(-x)))    \
    X(RELU, x > 0 || x != x ? x : 0.0f)     \
    X(SIN, sinf(x))                         \
    X(COS, cosf(x))
/* clang-format on */
#define UNARY_ROW(op, expr)                                                                                            \
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
#define ROW(op, expr) [ATOMO_##op] = {#op, unary_##op},
    UNARIES(ROW)
#undef ROW
};

atomo__unary_row *atomo__unary_of(int op)
{
    return unaries[op].row;
}

int atomo_unary(int op, const atomo_tensor *a, atomo_tensor **out)
{
    ATOMO_REQUIRE(op >= 0 && op < ATOMO_UNARY_COUNT, ATOMO_EARG, "unary: unknown operation %d", op);
    ATOMO_REQUIRE(a->dtype == ATOMO_F32, ATOMO_EDTYPE, "%s: tensor is %s, expected f32", unaries[op].name,
                  atomo__dtype_name(a->dtype));
    ATOMO_TRY(atomo__output(out, ATOMO_F32, a->ndim, a->shape, unaries[op].name));
    atomo_walk w;
    atomo__walk_init(&w, a->ndim, a->shape, 1, &a);
    const int64_t sa = w.stride[0][w.ndim - 1];
    const int64_t chunk = w.rows == 1 ? 16384 : w.row, chunks = w.rows == 1 ? (w.row + chunk - 1) / chunk : w.rows;
    float *o = atomo__f32(*out);
#pragma omp parallel for if (w.rows * w.row > ATOMO_PARALLEL_MIN)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t at[3], i = w.rows == 1 ? c * chunk : 0, n = w.rows == 1 ? ATOMO_MIN(chunk, w.row - i) : w.row;
        atomo__walk_row(&w, w.rows == 1 ? 0 : c, at);
        unaries[op].row(atomo__f32(a) + at[0] + i * sa, sa, o + (w.rows == 1 ? i : c * w.row), n);
    }
    return ATOMO_OK;
}

ATOMO_CLONES static void clamp_row(const float *a, float lo, float hi, float *o, int64_t n)
{
    for (int64_t i = 0; i < n; i++) o[i] = a[i] < lo ? lo : a[i] > hi ? hi : a[i];
}

int atomo_clamp(const atomo_tensor *a, double lo, double hi, atomo_tensor **out)
{
    ATOMO_REQUIRE(lo <= hi, ATOMO_EARG, "clamp: lower bound %g above upper bound %g", lo, hi);
    ATOMO_REQUIRE(a->dtype == ATOMO_F32, ATOMO_EDTYPE, "clamp: tensor is %s, expected f32",
                  atomo__dtype_name(a->dtype));
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__contiguous(a, &c, &hold));
    int rc = atomo__output(out, ATOMO_F32, a->ndim, a->shape, "clamp");
    if (rc == 0) clamp_row(atomo__f32(c), (float)lo, (float)hi, atomo__f32(*out), atomo__numel(a));
    atomo_tensor_free(hold);
    return rc;
}

/* ---- fill, copy, axpy -------------------------------------------------------------------------------------------- */

int atomo_fill(atomo_tensor *t, double value)
{
    ATOMO_REQUIRE(t->dtype == ATOMO_F32 || fits_i32(value), ATOMO_EARG, "fill: %g does not fit %s", value,
                  atomo__dtype_name(t->dtype));
    ATOMO_REQUIRE(t->dtype != ATOMO_U8 || (value >= 0 && value <= 255), ATOMO_EARG, "fill: %g does not fit u8", value);
    float f = (float)value;
    int32_t i = t->dtype == ATOMO_F32 ? 0 : (int32_t)value;
    uint8_t u = (uint8_t)i;
    void *data = t->dtype == ATOMO_F32 ? (void *)&f : t->dtype == ATOMO_I32 ? (void *)&i : (void *)&u;
    atomo_tensor scalar = {.data = data, .dtype = t->dtype, .ndim = 0, .numel = 1};
    return atomo_copy(t, &scalar);
}

/* f32 to an integer type: truncated, saturated, NaN to 0 (a plain cast would be undefined out of range). */
static inline int32_t f32_to_i32(float v)
{
    return v != v ? 0 : v >= 0x1p31f ? INT32_MAX : v < -0x1p31f ? INT32_MIN : (int32_t)v;
}

static inline uint8_t i32_to_u8(int32_t v)
{
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

#define AS_IS(v)     (v)
#define F32_TO_U8(v) i32_to_u8(f32_to_i32(v))
#define CONVERT(D, S, how)                                                                                             \
    do {                                                                                                               \
        D *d_ = (D *)dst->data + at[0];                                                                                \
        const S *s_ = (const S *)src->data + at[1];                                                                    \
        for (int64_t j = 0; j < w.row; j++) d_[j * sd] = (D)how(s_[j * ss]);                                           \
    } while (0)

int atomo_copy(atomo_tensor *dst, const atomo_tensor *src)
{
    int ndim;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__broadcast_shape(dst, src, "copy", &ndim, shape));
    bool fits = ndim == dst->ndim;
    for (int i = 0; fits && i < ndim; i++) fits = shape[i] == dst->shape[i];
    ATOMO_REQUIRE(fits, ATOMO_ESHAPE, "copy: %s does not fit into %s", atomo__shape_text(src), atomo__shape_text(dst));
    const atomo_tensor *const t[2] = {dst, src};
    atomo_walk w;
    atomo__walk_init(&w, ndim, shape, 2, t);
    const int64_t sd = w.stride[0][w.ndim - 1], ss = w.stride[1][w.ndim - 1];
#pragma omp parallel for if (w.rows > 1 && w.rows * w.row > ATOMO_PARALLEL_MIN)
    for (int64_t r = 0; r < w.rows; r++) {
        int64_t at[3];
        atomo__walk_row(&w, r, at);
        switch (dst->dtype * 3 + src->dtype) {
        case ATOMO_F32 * 3 + ATOMO_F32:
            CONVERT(float, float, AS_IS);
            break;
        case ATOMO_F32 * 3 + ATOMO_I32:
            CONVERT(float, int32_t, AS_IS);
            break;
        case ATOMO_F32 * 3 + ATOMO_U8:
            CONVERT(float, uint8_t, AS_IS);
            break;
        case ATOMO_I32 * 3 + ATOMO_F32:
            CONVERT(int32_t, float, f32_to_i32);
            break;
        case ATOMO_I32 * 3 + ATOMO_I32:
            CONVERT(int32_t, int32_t, AS_IS);
            break;
        case ATOMO_I32 * 3 + ATOMO_U8:
            CONVERT(int32_t, uint8_t, AS_IS);
            break;
        case ATOMO_U8 * 3 + ATOMO_F32:
            CONVERT(uint8_t, float, F32_TO_U8);
            break;
        case ATOMO_U8 * 3 + ATOMO_I32:
            CONVERT(uint8_t, int32_t, i32_to_u8);
            break;
        default:
            CONVERT(uint8_t, uint8_t, AS_IS);
            break;
        }
    }
    return ATOMO_OK;
}

ATOMO_CLONES static void axpy_row(float *y, int64_t sy, float alpha, const float *x, int64_t sx, int64_t n)
{
    if (sy == 1 && sx == 1) {
        for (int64_t i = 0; i < n; i++) y[i] += alpha * x[i];
    } else {
        for (int64_t i = 0; i < n; i++) y[i * sy] += alpha * x[i * sx];
    }
}

int atomo_axpy(atomo_tensor *y, double alpha, const atomo_tensor *x)
{
    ATOMO_REQUIRE(y->dtype == ATOMO_F32 && x->dtype == ATOMO_F32, ATOMO_EDTYPE,
                  "axpy: %s += alpha %s, both must be f32", atomo__dtype_name(y->dtype), atomo__dtype_name(x->dtype));
    int ndim;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__broadcast_shape(y, x, "axpy", &ndim, shape));
    bool fits = ndim == y->ndim;
    for (int i = 0; fits && i < ndim; i++) fits = shape[i] == y->shape[i];
    ATOMO_REQUIRE(fits, ATOMO_ESHAPE, "axpy: %s does not fit into %s", atomo__shape_text(x), atomo__shape_text(y));
    const atomo_tensor *const t[2] = {y, x};
    atomo_walk w;
    atomo__walk_init(&w, ndim, shape, 2, t);
    const int64_t sy = w.stride[0][w.ndim - 1], sx = w.stride[1][w.ndim - 1];
    const int64_t chunk = w.rows == 1 ? 16384 : w.row, chunks = w.rows == 1 ? (w.row + chunk - 1) / chunk : w.rows;
#pragma omp parallel for if (w.rows * w.row > ATOMO_PARALLEL_MIN)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t at[3], i = w.rows == 1 ? c * chunk : 0, n = w.rows == 1 ? ATOMO_MIN(chunk, w.row - i) : w.row;
        atomo__walk_row(&w, w.rows == 1 ? 0 : c, at);
        axpy_row(atomo__f32(y) + at[0] + i * sy, sy, (float)alpha, atomo__f32(x) + at[1] + i * sx, sx, n);
    }
    return ATOMO_OK;
}
