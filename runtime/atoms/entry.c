/* entry.c - entry atoms: the tensor's own coordinates; stage 4 of the path.
 *
 * Wang et al. 2018, section 3: lambda_i = g_i, atoms e_i. atoms/common/coefficients.c does the coding. Encoding takes
 * two passes over the gradient.
 */
#include "atoms/common/coefficients.h"

enum { STEP, OPTIONS };

static const struct atomo__option options[] = {ATOMO__STEP_OPTION, {0}};

static int measure(atomo__plan *plan, const float *g, atomo__context *c)
{
    (void)c;
    return atomo__entries_measure(plan, g, false);
}

static int refine(atomo__plan *plan, const float *g)
{
    return atomo__entries_refine(plan, g) < 0 ? atomo__refuse_nonfinite(plan, g) : ATOMO_OK;
}

static void price(atomo__plan *plan, double T)
{
    atomo__entries_price(plan, T, plan->option[STEP]);
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    return atomo__entries_encode(plan, g, plan->option[STEP], atomo__claim_scratch(c), c, w);
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    return atomo__entries_decode_add(plan->n, plan->option[STEP], r, atomo__claim_scratch(c), scale, acc);
}

const struct atomo_atoms atomo_atoms_entry = {
    .name = "entry",
    .summary = "single entries, kept in proportion to their size",
    .source = "Wang et al., ATOMO, NeurIPS 2018, section 3",
    .options = options,
    .together = true,
    .stages = {.plan = atomo__entries_plan,
               .measure = measure,
               .refine = refine,
               .guess = atomo__entries_guess,
               .price = price,
               .encode = encode,
               .decode_add = decode_add},
};
