/* bf16.c - entries in 16 bits, the upper half of an f32: 8 bits of mantissa, full range; stage 6 of the path.
 *
 * Kalamkar et al., A study of BFLOAT16, 2019. round=nearest (ties to even) is biased and has the least error;
 * round=stochastic is unbiased. The implementation is in compress/common/half.c.
 */
#include "compress/common/half.h"

const struct atomo_compressor atomo_compressor_bf16 = {
    .name = "bf16",
    .summary = "the upper half of a float: 8 bits of mantissa, full range (biased unless round=stochastic)",
    .source = "Kalamkar et al., A study of BFLOAT16, 2019",
    .unbiased = true,
    .contracts = true,
    .options = atomo__half_options,
    .stages = {.plan = atomo__bf16_plan,
               .encode = atomo__bf16_encode,
               .decode_add = atomo__bf16_decode,
               .decode_part = atomo__bf16_decode_part},
    .biased = atomo__half_biased,
    .linear = &atomo__bf16_linear,
};
