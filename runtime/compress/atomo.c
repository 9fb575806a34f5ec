/* atomo.c - ATOMO over any atom set: a budget, Algorithm 1, draws; stages 4 to 6 of the path.
 *
 * Wang et al., "ATOMO: Communication-efficient Learning via Atomic Sparsification", NeurIPS 2018. The atom set (its
 * name is the compressor's: "svd:ratio=16") measures, prices, writes and reads; the budget is shared by codec/encode.c.
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

static int plan(atomo__part *part)
{
    return part->atoms->plan(part);
}

static int start(atomo__part *part)
{
    return part->atoms->start ? part->atoms->start(part) : ATOMO_OK;
}

static void stop(atomo__part *part)
{
    if (part->atoms->stop) part->atoms->stop(part);
}

static int measure(atomo__part *part, const float *g, atomo__coder *c)
{
    return part->atoms->measure(part, g, c);
}

static int refine(atomo__part *part, const float *g)
{
    return part->atoms->refine ? part->atoms->refine(part, g) : ATOMO_OK;
}

static void guess(atomo__part *part, double bits)
{
    if (part->atoms->guess) part->atoms->guess(part, bits);
}

static void price(atomo__part *part, double T)
{
    part->priced_unit = part->segment.unit;
    part->priced_fixed = part->fixed_bits;
    if (part->atoms->price) part->atoms->price(part, T);
}

static int encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w)
{
    return part->atoms->encode(part, g, c, w);
}

static int decode_add(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc)
{
    return part->atoms->decode_add(part, r, c, scale, acc);
}

const struct atomo_compressor atomo_compressor_atomo = {
    .name = "atomo",
    .summary = "atoms kept with Algorithm 1's probabilities",
    .source = "Wang et al., ATOMO, NeurIPS 2018",
    .unbiased = true,
    .options = options,
    .takes_atoms = true,
    .plan = plan,
    .start = start,
    .stop = stop,
    .measure = measure,
    .refine = refine,
    .guess = guess,
    .price = price,
    .encode = encode,
    .decode_add = decode_add,
};
