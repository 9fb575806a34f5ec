/* bf16.c - rounding of f32 to bf16, its upper 16 bits, as IEEE 754 rounds: to nearest, ties to even. Values beyond
 * bf16's largest number become infinite, infinities stay, and a NaN stays a NaN. float16.c rounds for messages, where
 * large values must stay finite.
 */
#include "tensor/float16.h"

/* The bits of an f32 after rounding; the upper half is the bf16. */
static inline uint32_t nearest(float x)
{
    const union {
        float f;
        uint32_t u;
    } v = {x};
    const uint32_t rounded = v.u + 0x7FFF + (v.u >> 16 & 1), quiet = v.u | 0x400000;
    return (v.u & 0x7FFFFFFF) > 0x7F800000 ? quiet : rounded;
}

ATOMO_CLONES void atomo__bf16_codes(int64_t n, const float *restrict x, uint16_t *restrict code)
{
    for (int64_t i = 0; i < n; i++) code[i] = (uint16_t)(nearest(x[i]) >> 16);
}

ATOMO_CLONES void atomo__bf16_round(int64_t n, const float *restrict x, float *restrict y)
{
    for (int64_t i = 0; i < n; i++) {
        const union {
            uint32_t u;
            float f;
        } v = {nearest(x[i]) & 0xFFFF0000};
        y[i] = v.f;
    }
}

ATOMO_CLONES void atomo__bf16_values(int64_t n, const uint16_t *restrict code, float *restrict x)
{
    for (int64_t i = 0; i < n; i++) {
        const union {
            uint32_t u;
            float f;
        } v = {(uint32_t)code[i] << 16};
        x[i] = v.f;
    }
}
