/* bf16.c - rounding of f32 to bf16, its upper 16 bits, as IEEE 754 rounds: to nearest, ties to even. Values beyond
 * bf16's largest number become infinite, infinities stay, and a NaN stays a NaN. float16.c rounds for messages, where
 * large values must stay finite.
 */
#include "tensor/float16.h"

ATOMO_CLONES void atomo__bf16_codes(int64_t n, const float *restrict x, uint16_t *restrict code)
{
    for (int64_t i = 0; i < n; i++) code[i] = atomo__bf16_of(x[i]);
}

ATOMO_CLONES void atomo__bf16_round(int64_t n, const float *restrict x, float *restrict y)
{
    for (int64_t i = 0; i < n; i++) y[i] = atomo__bf16_value(atomo__bf16_of(x[i]));
}

ATOMO_CLONES void atomo__bf16_values(int64_t n, const uint16_t *restrict code, float *restrict x)
{
    for (int64_t i = 0; i < n; i++) x[i] = atomo__bf16_value(code[i]);
}

enum { PART = 1 << 14 };

int atomo_bf16_pack(const atomo_tensor *t, atomo_tensor **out)
{
    ATOMO_MAKING(made, t);
    ATOMO_TRY(atomo__expect(t, ATOMO_F32, -1, "bf16_pack: tensor"));
    const int64_t n = atomo__numel(t);
    const double bytes = 2 * (double)n;
    ATOMO_TRY(atomo__make(&made, out, ATOMO_U8, 1, &bytes, "bf16_pack"));
    const float *x = atomo__f32(t);
    uint16_t *code = (*out)->data;
    ATOMO_FOR(i, n, PART, n > ATOMO_PARALLEL_MIN, atomo__bf16_codes(ATOMO_MIN(PART, n - i), x + i, code + i));
    return atomo__made(&made, ATOMO_OK);
}

const atomo_tensor *atomo__bf16_seen(const atomo_tensor *x, atomo_tensor *as)
{
    if (!x || x->dtype != ATOMO_U8 || x->ndim == 0 || !atomo_tensor_is_contiguous(x)) return x;
    *as = *x;
    as->dtype = ATOMO_F32;
    as->numel = x->numel / 2;
    as->shape[x->ndim - 1] = x->shape[x->ndim - 1] / 2;
    for (int i = 0; i < x->ndim - 1; i++) as->stride[i] = x->stride[i] / 2;
    return as;
}

int atomo__bf16_unpacked(const uint16_t *code, int64_t n, float **x)
{
    void *space;
    ATOMO_TRY(atomo__alloc(&space, (size_t)n * sizeof(float)));
    *x = space;
    float *v = space;
    ATOMO_FOR(i, n, PART, n > ATOMO_PARALLEL_MIN, atomo__bf16_values(ATOMO_MIN(PART, n - i), code + i, v + i));
    return ATOMO_OK;
}

int atomo_bf16_unpack(const atomo_tensor *codes, const atomo_tensor *like, atomo_tensor **out)
{
    ATOMO_MAKING(made, codes);
    ATOMO_TRY(atomo__expect(codes, ATOMO_U8, 1, "bf16_unpack: codes"));
    ATOMO_REQUIRE(codes->numel == 2 * like->numel, ATOMO_ESHAPE, "bf16_unpack: %s bytes, expected 2 for each of %s",
                  atomo__shape_text(codes), atomo__shape_text(like));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, like->ndim, like->shape, "bf16_unpack"));
    const int64_t n = atomo__numel(like);
    const uint16_t *code = codes->data;
    float *x = atomo__f32(*out);
    ATOMO_FOR(i, n, PART, n > ATOMO_PARALLEL_MIN, atomo__bf16_values(ATOMO_MIN(PART, n - i), code + i, x + i));
    return atomo__made(&made, ATOMO_OK);
}
