/* copy.c - fill, copy (with conversion between types) and axpy, for strided and broadcast tensors. Path: every stage.
 */
#include "tensor/float16.h"
#include "tensor/iterator.h"

/* Converts f32 to i32: truncates, saturates, and makes NaN 0 (a plain cast is undefined outside the range of i32). */
static inline int32_t f32_to_i32(float v)
{
    return v != v ? 0 : v >= 0x1p31f ? INT32_MAX : v < -0x1p31f ? INT32_MIN : (int32_t)v;
}

static inline uint8_t i32_to_u8(int32_t v)
{
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

int atomo_fill(atomo_tensor *t, double value)
{
    const bool whole = t->dtype == ATOMO_I32 || t->dtype == ATOMO_U8;
    ATOMO_REQUIRE(!whole || atomo__fits_i32(value), ATOMO_EARG, "fill: %g does not fit %s", value,
                  atomo__dtype_name(t->dtype));
    ATOMO_REQUIRE(t->dtype != ATOMO_U8 || (value >= 0 && value <= 255), ATOMO_EARG, "fill: %g does not fit u8", value);
    ATOMO_TRY(atomo__target(t, "fill"));
    float f = (float)value;
    int32_t i = whole ? (int32_t)value : 0;
    atomo_tensor scalar = {.data = &f, .dtype = ATOMO_F32, .ndim = 0, .numel = 1};
    if (whole) {
        scalar.data = &i;
        scalar.dtype = ATOMO_I32;
    }
    return atomo_copy(t, &scalar);
}

#define AS_IS(v)     (v)
#define F32_TO_U8(v) i32_to_u8(f32_to_i32(v))
#define F16_OF(v)    atomo__f16_of((float)(v))
#define BF16_OF(v)   atomo__bf16_of((float)(v))
#define CONVERT(D, S, expression)                                                                                      \
    do {                                                                                                               \
        D *d_ = (D *)dst->data + p.at[0];                                                                              \
        const S *s_ = (const S *)src->data + p.at[1];                                                                  \
        for (int64_t j = 0; j < p.n; j++) {                                                                            \
            const S v = s_[j * ss];                                                                                    \
            d_[j * sd] = (D)(expression);                                                                              \
        }                                                                                                              \
    } while (0)
#define PAIR(to, from) ((to)*ATOMO_DTYPES + (from))
/* The copies of f32, f16 and bf16 to elements of C's type D, by `put` of a float. */
#define FROM_FLOATS(to, D, put)                                                                                        \
    case PAIR(to, ATOMO_F32):                                                                                          \
        CONVERT(D, float, put(v));                                                                                     \
        break;                                                                                                         \
    case PAIR(to, ATOMO_F16):                                                                                          \
        CONVERT(D, uint16_t, put(atomo__f16_value(v)));                                                                \
        break;                                                                                                         \
    case PAIR(to, ATOMO_BF16):                                                                                         \
        CONVERT(D, uint16_t, put(atomo__bf16_value(v)));                                                               \
        break;
/* The copies of i32 and u8, by `put` of an integer. */
#define FROM_INTEGERS(to, D, put)                                                                                      \
    case PAIR(to, ATOMO_I32):                                                                                          \
        CONVERT(D, int32_t, put(v));                                                                                   \
        break;                                                                                                         \
    case PAIR(to, ATOMO_U8):                                                                                           \
        CONVERT(D, uint8_t, put(v));                                                                                   \
        break;

static void copy_piece(const atomo__iterator *it, int64_t i, const atomo_tensor *dst, const atomo_tensor *src)
{
    const atomo_piece p = atomo__piece(it, i);
    const int64_t sd = it->stride[0][it->ndim - 1], ss = it->stride[1][it->ndim - 1];
    switch (PAIR(dst->dtype, src->dtype)) {
        FROM_FLOATS(ATOMO_F32, float, AS_IS)
        FROM_INTEGERS(ATOMO_F32, float, AS_IS)
        FROM_FLOATS(ATOMO_I32, int32_t, f32_to_i32)
        FROM_INTEGERS(ATOMO_I32, int32_t, AS_IS)
        FROM_FLOATS(ATOMO_U8, uint8_t, F32_TO_U8)
        FROM_INTEGERS(ATOMO_F16, uint16_t, F16_OF)
        FROM_INTEGERS(ATOMO_BF16, uint16_t, BF16_OF)
    case PAIR(ATOMO_U8, ATOMO_I32):
        CONVERT(uint8_t, int32_t, i32_to_u8(v));
        break;
    case PAIR(ATOMO_F16, ATOMO_F32):
        CONVERT(uint16_t, float, atomo__f16_of(v));
        break;
    case PAIR(ATOMO_F16, ATOMO_BF16):
        CONVERT(uint16_t, uint16_t, atomo__f16_of(atomo__bf16_value(v)));
        break;
    case PAIR(ATOMO_BF16, ATOMO_F32):
        CONVERT(uint16_t, float, atomo__bf16_of(v));
        break;
    case PAIR(ATOMO_BF16, ATOMO_F16):
        CONVERT(uint16_t, uint16_t, atomo__bf16_of(atomo__f16_value(v)));
        break;
    case PAIR(ATOMO_U8, ATOMO_U8):
        CONVERT(uint8_t, uint8_t, v);
        break;
    default: /* f16 to f16, bf16 to bf16: bits */
        CONVERT(uint16_t, uint16_t, v);
        break;
    }
}

int atomo_copy(atomo_tensor *dst, const atomo_tensor *src)
{
    int ndim;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__broadcast_shape(dst, src, "copy", &ndim, shape));
    bool fits = ndim == dst->ndim;
    for (int i = 0; fits && i < ndim; i++) fits = shape[i] == dst->shape[i];
    ATOMO_REQUIRE(fits, ATOMO_ESHAPE, "copy: %s does not fit into %s", atomo__shape_text(src), atomo__shape_text(dst));
    const atomo_tensor *from;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__target(dst, "copy"));
    ATOMO_TRY(atomo__operand(dst, src, &from, &hold));
    const atomo_tensor *const t[2] = {dst, from};
    atomo__iterator it;
    atomo__iterator_init(&it, ndim, shape, 2, t);
    ATOMO_FOR(i, atomo__pieces(&it), 1, it.rows > 1 && atomo__iterator_is_wide(&it), copy_piece(&it, i, dst, from));
    atomo_tensor_free(hold);
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

static void axpy_piece(const atomo__iterator *it, int64_t i, const atomo_tensor *y, float alpha, const atomo_tensor *x)
{
    const atomo_piece p = atomo__piece(it, i);
    axpy_row(atomo__f32(y) + p.at[0], it->stride[0][it->ndim - 1], alpha, atomo__f32(x) + p.at[1],
             it->stride[1][it->ndim - 1], p.n);
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
    const atomo_tensor *from;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__target(y, "axpy"));
    ATOMO_TRY(atomo__operand(y, x, &from, &hold));
    const atomo_tensor *const t[2] = {y, from};
    atomo__iterator it;
    atomo__iterator_init(&it, ndim, shape, 2, t);
    ATOMO_FOR(i, atomo__pieces(&it), 1, atomo__iterator_is_wide(&it), axpy_piece(&it, i, y, (float)alpha, from));
    atomo_tensor_free(hold);
    return ATOMO_OK;
}
