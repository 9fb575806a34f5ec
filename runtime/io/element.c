/* element.c - converts elements of files to elements of tensors: floats of all widths become f32 (rounded to nearest),
 * integers i32, booleans u8. The caller refuses elements that do not fit, such as a finite f64 beyond f32. Path: none.
 */
#include "io/element.h"
#include "tensor/float16.h"
#include <math.h>
#include <string.h>

static const struct {
    int dtype;
    int64_t size;
} kinds[ATOMO_RAW_COUNT] = {
    [ATOMO_F32] = {ATOMO_F32, 4},
    [ATOMO_I32] = {ATOMO_I32, 4},
    [ATOMO_U8] = {ATOMO_U8, 1},
    [ATOMO_RAW_F16] = {ATOMO_F32, 2},
    [ATOMO_RAW_BF16] = {ATOMO_F32, 2},
    [ATOMO_RAW_F64] = {ATOMO_F32, 8},
    [ATOMO_RAW_I64] = {ATOMO_I32, 8},
    [ATOMO_RAW_BOOL] = {ATOMO_U8, 1},
    [ATOMO_RAW_I8] = {ATOMO_I32, 1},
    [ATOMO_RAW_I16] = {ATOMO_I32, 2},
    [ATOMO_RAW_U16] = {ATOMO_I32, 2},
    [ATOMO_RAW_U32] = {ATOMO_I32, 4},
    [ATOMO_RAW_U64] = {ATOMO_I32, 8},
    [ATOMO_RAW_F8_E4M3] = {ATOMO_F32, 1},
    [ATOMO_RAW_F8_E5M2] = {ATOMO_F32, 1},
    [ATOMO_RAW_F8_E4M3FNUZ] = {ATOMO_F32, 1},
    [ATOMO_RAW_F8_E5M2FNUZ] = {ATOMO_F32, 1},
    [ATOMO_RAW_F8_E8M0] = {ATOMO_F32, 1},
};

int atomo__element_dtype(int kind)
{
    return kinds[kind].dtype;
}

int64_t atomo__element_size(int kind)
{
    return kinds[kind].size;
}

/* Returns a float of `width` bits: a sign, an exponent with this bias, and `fraction` bits; without Inf and NaN. */
static float small_float(uint32_t bits, int width, int fraction, int bias)
{
    const uint32_t magnitude = bits & ((1u << (width - 1)) - 1), m = magnitude & ((1u << fraction) - 1);
    const int e = (int)(magnitude >> fraction);
    const float v =
        e ? ldexpf((float)(m | 1u << fraction), e - bias - fraction) : ldexpf((float)m, 1 - bias - fraction);
    return bits >> (width - 1) ? -v : v;
}

/* The same for IEEE's formats, in which the highest exponent means Inf (fraction 0) or NaN. */
static float ieee_float(uint32_t bits, int width, int fraction, int bias)
{
    const uint32_t top = (1u << (width - 1 - fraction)) - 1, magnitude = bits & ((1u << (width - 1)) - 1);
    if (magnitude >> fraction != top) return small_float(bits, width, fraction, bias);
    if (magnitude & ((1u << fraction) - 1)) return NAN;
    return bits >> (width - 1) ? -INFINITY : INFINITY;
}

/* 8-bit floats [Micikevicius et al. 2022; OCP Microscaling 2023]. */
static float float_of_8(int kind, uint8_t b)
{
    switch (kind) {
    case ATOMO_RAW_F8_E4M3:
        return (b & 0x7F) == 0x7F ? NAN : small_float(b, 8, 3, 7);
    case ATOMO_RAW_F8_E5M2:
        return ieee_float(b, 8, 2, 15);
    case ATOMO_RAW_F8_E4M3FNUZ:
        return b == 0x80 ? NAN : small_float(b, 8, 3, 8);
    case ATOMO_RAW_F8_E5M2FNUZ:
        return b == 0x80 ? NAN : small_float(b, 8, 2, 16);
    default: /* E8M0: a power of two */
        return b == 0xFF ? NAN : ldexpf(1, b - 127);
    }
}

static bool put_whole(int64_t v, int32_t *to)
{
    *to = (int32_t)v;
    return v >= INT32_MIN && v <= INT32_MAX;
}

static bool put_double(double v, float *to)
{
    *to = (float)v;
    return isfinite(*to) || !isfinite(v);
}

typedef union element {
    uint8_t u8[8];
    int8_t i8;
    int16_t i16;
    uint16_t u16;
    uint32_t u32;
    int64_t i64;
    uint64_t u64;
    double f64;
} element;

/* Converts the element at p to t's element i; returns false if it does not fit. */
static bool convert_one(int kind, const uint8_t *p, atomo_tensor *t, int64_t i)
{
    element v;
    memcpy(v.u8, p, (size_t)kinds[kind].size);
    switch (kind) {
    case ATOMO_RAW_F16:
        atomo__f32(t)[i] = atomo__f16_value(v.u16);
        return true;
    case ATOMO_RAW_BF16:
        atomo__f32(t)[i] = atomo__bf16_value(v.u16);
        return true;
    case ATOMO_RAW_F64:
        return put_double(v.f64, atomo__f32(t) + i);
    case ATOMO_RAW_BOOL:
        ((uint8_t *)t->data)[i] = *p;
        return *p <= 1;
    case ATOMO_RAW_I8:
        return put_whole(v.i8, atomo__i32(t) + i);
    case ATOMO_RAW_I16:
        return put_whole(v.i16, atomo__i32(t) + i);
    case ATOMO_RAW_U16:
        return put_whole(v.u16, atomo__i32(t) + i);
    case ATOMO_RAW_U32:
        return put_whole(v.u32, atomo__i32(t) + i);
    case ATOMO_RAW_I64:
        return put_whole(v.i64, atomo__i32(t) + i);
    case ATOMO_RAW_U64:
        return put_whole((int64_t)v.u64, atomo__i32(t) + i) && v.u64 <= INT32_MAX;
    default:
        atomo__f32(t)[i] = float_of_8(kind, *p);
        return true;
    }
}

int64_t atomo__convert_elements(int kind, const void *bytes, int64_t n, atomo_tensor *t, int64_t at)
{
    const int64_t size = kinds[kind].size;
    if (kind <= ATOMO_U8) { /* the same type in file and tensor */
        if (n > 0) memcpy((char *)t->data + at * size, bytes, (size_t)(n * size));
        return n;
    }
    for (int64_t i = 0; i < n; i++)
        if (!convert_one(kind, (const uint8_t *)bytes + i * size, t, at + i)) return i;
    return n;
}

double atomo__element_value(int kind, const void *bytes)
{
    element v;
    memcpy(v.u8, bytes, (size_t)kinds[kind].size);
    switch (kind) {
    case ATOMO_RAW_F64:
        return v.f64;
    case ATOMO_RAW_I64:
        return (double)v.i64;
    case ATOMO_RAW_U64:
        return (double)v.u64;
    case ATOMO_RAW_U32:
        return v.u32;
    default: /* a boolean; elements of all other kinds fit */
        return v.u8[0];
    }
}
