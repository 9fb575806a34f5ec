/* atomo.c - the compressor ATOMO, for any atom set: a budget, Algorithm 1, random draws; stages 4 to 6 of the path.
 *
 * Wang et al., "ATOMO: Communication-efficient Learning via Atomic Sparsification", NeurIPS 2018. The compressor is
 * named after the atom set ("svd:ratio=16"), which has all the stages. This file has only the options that come before
 * the set's own. codec/step_budget.c and codec/stream.c divide the budget among tensors.
 */
#include "codec/codec.h"
#include <math.h>

static const struct atomo__option options[] = {
    {"atoms", ATOMO_OPTION_FLOAT, NAN, 1e-6, 1e15, NULL, "budget: expected number of atoms per tensor (the paper's s)"},
    {"ratio", ATOMO_OPTION_FLOAT, NAN, 1e-3, 1e9, NULL,
     "budget: dense bytes over message bytes, for all tensors of a step together (16 where no budget is given)"},
    {"bytes", ATOMO_OPTION_FLOAT, NAN, 1, 1e15, NULL, "budget: bytes for all tensors of a step together"},
    {"sampling", ATOMO_OPTION_ENUM, 0, 0, 2, "auto|bernoulli|systematic",
     "atoms drawn independently, or all of a tensor with one uniform: the same mean and variance, a fixed number of "
     "atoms; auto: entries independently, rank-one matrices, rows and atoms made in Lua with one uniform"},
    {0}};

const struct atomo_compressor atomo_compressor_atomo = {
    .name = "atomo",
    .summary = "atoms kept with Algorithm 1's probabilities",
    .source = "Wang et al., ATOMO, NeurIPS 2018",
    .unbiased = true,
    .options = options,
    .takes_atoms = true,
};
