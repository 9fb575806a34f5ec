/* fp16.c - entries in 16 bits: IEEE half precision, with one power of two per tensor as scale; stage 6 of the path.
 *
 * IEEE 754 binary16. round=nearest (ties to even) is biased and has the least error; round=stochastic is unbiased. The
 * implementation is in compress/common/half.c.
 */
#include "compress/common/half.h"

const struct atomo_compressor atomo_compressor_fp16 = {
    .name = "fp16",
    .summary = "IEEE half precision, with a power of two for the tensor (biased unless round=stochastic)",
    .source = "IEEE 754 binary16",
    .unbiased = true,
    .contracts = true,
    .options = atomo__half_options,
    .stages = {.plan = atomo__fp16_plan, .encode = atomo__fp16_encode, .decode_add = atomo__fp16_decode},
    .biased = atomo__half_biased,
    .linear = &atomo__fp16_linear,
};
