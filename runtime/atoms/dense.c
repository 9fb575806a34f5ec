/* dense.c - every entry of a tensor in few bits, with one scale: what `auto` sends where nearly all entries matter;
 * stages 4 to 6 of the path.
 *
 * The stochastic rounding of coding/quantize.c: unbiased, the variance in closed form. No atom is left out, so the
 * message has one length whatever the budget: all of it is fixed_bits, and the segment is empty.
 */
#include "codec/codec.h"
#include <math.h>

enum { BITS };

static const struct atomo__option options[] = {
    {"bits", ATOMO_OPTION_INT, 8, 2, 32, "32|16|8|6|4|3|2", "bits of an entry, stochastically rounded"}, {0}};

static int plan(atomo__part *part)
{
    part->scratch = sizeof(float) * (size_t)part->n;
    part->state_size = sizeof(double);
    part->body_max = 8 + ((size_t)part->n * (size_t)part->option[BITS] + 7) / 8;
    return ATOMO_OK;
}

static int measure(atomo__part *part, const float *g, atomo__coder *c)
{
    (void)c;
    double *variance = part->state;
    atomo__quant_variance(g, part->n, (int)part->option[BITS], &part->square, variance);
    if (!isfinite(part->square)) return atomo__refuse_nonfinite(part, g);
    part->segment = (atomo__segment){.unit = 1};
    part->fixed_bits = 32 + part->option[BITS] * (double)part->n;
    part->variance = *variance;
    return ATOMO_OK;
}

static int encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w)
{
    const int bits = (int)part->option[BITS];
    const float scale = atomo__quant_scale(g, part->n, bits);
    atomo_stream stream = c->stream;
    stream.purpose = ATOMO_RNG_QUANT;
    atomo__put_f32(w, scale);
    atomo__quant_write(w, g, part->n, bits, scale, &stream, 0, atomo__room(c));
    part->expected = part->sent = (double)part->n;
    part->variance = *(const double *)part->state;
    return ATOMO_OK;
}

ATOMO_CLONES static void add(const float *x, int64_t n, float scale, float *acc)
{
    for (int64_t i = 0; i < n; i++) acc[i] += scale * x[i];
}

static int decode_add(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc)
{
    const float step = scale * atomo__get_f32(r);
    float *x = atomo__room(c);
    atomo__quant_read(r, x, part->n, (int)part->option[BITS]);
    if (r->bad || !isfinite(step)) return ATOMO_EFORMAT;
    add(x, part->n, step, acc);
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
