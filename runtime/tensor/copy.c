/* copy.c - fill, copy (with conversion between types) and axpy, for strided and broadcast tensors. Path: every stage.
 */
#include "tensor/iterator.h"

int atomo_fill(atomo_tensor *t, double value)
{
    ATOMO_REQUIRE(t->dtype == ATOMO_F32 || atomo__fits_i32(value), ATOMO_EARG, "fill: %g does not fit %s", value,
                  atomo__dtype_name(t->dtype));
    ATOMO_REQUIRE(t->dtype != ATOMO_U8 || (value >= 0 && value <= 255), ATOMO_EARG, "fill: %g does not fit u8", value);
    ATOMO_TRY(atomo__target(t, "fill"));
    float f = (float)value;
    int32_t i = t->dtype == ATOMO_F32 ? 0 : (int32_t)value;
    uint8_t u = (uint8_t)i;
    void *data = t->dtype == ATOMO_F32 ? (void *)&f : t->dtype == ATOMO_I32 ? (void *)&i : (void *)&u;
    atomo_tensor scalar = {.data = data, .dtype = t->dtype, .ndim = 0, .numel = 1};
    return atomo_copy(t, &scalar);
}

/* Converts f32 to i32: truncates, saturates, and makes NaN 0 (a plain cast is undefined outside the range of i32). */
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
        D *d_ = (D *)dst->data + p.at[0];                                                                              \
        const S *s_ = (const S *)src->data + p.at[1];                                                                  \
        for (int64_t j = 0; j < p.n; j++) d_[j * sd] = (D)how(s_[j * ss]);                                             \
    } while (0)

static void copy_piece(const atomo__iterator *it, int64_t i, const atomo_tensor *dst, const atomo_tensor *src)
{
    const atomo_piece p = atomo__piece(it, i);
    const int64_t sd = it->stride[0][it->ndim - 1], ss = it->stride[1][it->ndim - 1];
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
