/* dense.c - sends every entry of a tensor in few bits, with one scale, which `auto` chooses if nearly all entries
 * matter; stages 4 to 6 of the path.
 *
 * Entries are rounded stochastically by coding/quantize.c: unbiased, with the variance in closed form. No atom is
 * dropped, so the length does not depend on the budget: all bits are fixed_bits, and the segment is empty.
 */
#include "codec/codec.h"
#include <math.h>

enum { BITS };

static const struct atomo__option options[] = {
    {"bits", ATOMO_OPTION_INT, 8, 2, 32, "32|16|8|6|4|3|2", "bits of an entry, stochastically rounded"}, {0}};

static int plan(atomo__plan *plan)
{
    plan->scratch = sizeof(float) * (size_t)plan->n;
    plan->state_size = sizeof(double);
    plan->body_max = 8 + ((size_t)plan->n * (size_t)plan->option[BITS] + 7) / 8;
    return ATOMO_OK;
}

static int measure(atomo__plan *plan, const float *g, atomo__context *c)
{
    (void)c;
    double *variance = plan->state;
    atomo__quant_variance(g, plan->n, (int)plan->option[BITS], &plan->square, variance);
    if (!isfinite(plan->square)) return atomo__refuse_nonfinite(plan, g);
    plan->segment = (atomo__segment){.unit = 1};
    plan->fixed_bits = 32 + plan->option[BITS] * (double)plan->n;
    plan->variance = *variance;
    return ATOMO_OK;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const int bits = (int)plan->option[BITS];
    const float scale = atomo__quant_scale(g, plan->n, bits);
    atomo_stream stream = c->stream;
    stream.purpose = ATOMO_RNG_QUANT;
    atomo__put_f32(w, scale);
    atomo__quant_write(w, g, plan->n, bits, scale, &stream, 0, atomo__claim_scratch(c));
    plan->expected = plan->sent = (double)plan->n;
    plan->variance = *(const double *)plan->state;
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const float step = scale * atomo__get_f32(r);
    float *x = atomo__claim_scratch(c);
    atomo__quant_read(r, x, plan->n, (int)plan->option[BITS]);
    if (r->bad || !isfinite(step)) return ATOMO_EFORMAT;
    atomo__add_scaled(x, plan->n, step, acc);
    return ATOMO_OK;
}

const struct atomo_atoms atomo_atoms_dense = {
    .name = "dense",
    .summary = "all entries in few bits",
    .source = "Alistarh et al., QSGD, NeurIPS 2017",
    .options = options,
    .hidden = true,
    .stages = {.plan = plan, .measure = measure, .encode = encode, .decode_add = decode_add},
};
