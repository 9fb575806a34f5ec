/* rows.c - one atom per filter: row i of the matrix out x the rest, normalised; stage 4 of the path.
 *
 * The terms e_i g_i^T are orthogonal, and lambda_i = ||g_i|| (structured sparsity: Wang et al. 2018, section 3, with
 * the identity as basis). A drawn row is sent as its index and its entries in `bits` bits, stochastically rounded. The
 * budget uses sqrt(||g_i||^2 + e_i), where e_i is the variance of the rounding. The message is unbiased; the variance
 * is exact.
 */
#include "codec/codec.h"
#include <math.h>

enum { BITS, OPTIONS };
/* The largest ||g||^2. A row of norm 2^112, divided by a small probability, may overflow f32. */
static const double LARGEST = 0x1p224;
/* Bits of a body without rows and indices: counts, list headers, the padding of the last byte. */
enum { FIXED_BITS = 16 };
/* Bits of the scale of a row. */
enum { SCALE_BITS = 32 };

static const struct atomo__option options[] = {
    {"bits", ATOMO_OPTION_INT, 8, 2, 32, "32|16|8|6|4|3|2", "bits of an entry on the wire, stochastically rounded"},
    {0}};

/* Scratch: [index rows][entries cols][uniforms cols]; state: [lambda rows]. */
static int64_t rows_of(const atomo__plan *plan)
{
    return plan->ndim > 0 ? (int64_t)plan->shape[0] : 1;
}

static int plan(atomo__plan *plan)
{
    const size_t rows = (size_t)rows_of(plan), cols = (size_t)plan->n / rows, bits = (size_t)plan->option[BITS];
    ATOMO_REQUIRE(rows < (size_t)1 << 31, ATOMO_ELIMIT, "rows: tensor %s has %.0f rows, at most 2^31-1 can be coded",
                  plan->name, (double)rows);
    plan->scratch = 4 * (rows + 2 * cols);
    plan->state_size = sizeof(double) * rows;
    plan->body_max = 32 + rows / 8 + rows * (4 + (cols * bits + 7) / 8);
    return ATOMO_OK;
}

static int measure(atomo__plan *plan, const float *g, atomo__context *c)
{
    (void)c;
    const int64_t rows = rows_of(plan), cols = plan->n / rows;
    double *lambda = plan->state;
    plan->square = 0;
    for (int64_t i = 0; i < rows; i++) {
        double square, noise;
        atomo__quant_variance(g + i * cols, cols, (int)plan->option[BITS], &square, &noise);
        plan->square += square;
        lambda[i] = sqrt(square + noise);
    }
    if (!isfinite(plan->square)) return atomo__refuse_nonfinite(plan, g);
    ATOMO_REQUIRE(plan->square <= LARGEST, ATOMO_ENONFINITE,
                  "%s: gradient of tensor %s: its norm is %g; drawn rows of more than 2^112 may leave the range",
                  plan->codec->name, plan->name, sqrt(plan->square));
    plan->segment = (atomo__segment){.f64 = lambda, .n = rows, .unit = plan->priced_unit};
    plan->fixed_bits = plan->priced_fixed;
    return ATOMO_OK;
}

/* Sets the prices for `s` drawn rows: scale, entries, and the index by the tangent of the list's length. */
static void tangent(atomo__plan *plan, double s)
{
    const double rows = (double)rows_of(plan), index = atomo__index_price(ATOMO_MAX(s, 1), rows);
    plan->priced_unit = SCALE_BITS + plan->option[BITS] * (double)plan->n / rows + index;
    plan->priced_fixed = FIXED_BITS + atomo__index_bits(s, rows) - index * s;
}

static void guess(atomo__plan *plan, double bits)
{
    const double rows = (double)rows_of(plan);
    tangent(plan, ATOMO_MIN(rows / 2, bits / (SCALE_BITS + plan->option[BITS] * (double)plan->n / rows)));
}

static void price(atomo__plan *plan, double T)
{
    (void)T;
    tangent(plan, plan->segment.expected);
}

static double probability(const atomo__plan *plan, double lambda)
{
    const double t = plan->T * sqrt(plan->segment.unit);
    return lambda <= 0 ? 0 : lambda >= t ? 1 : lambda / t;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const int64_t rows = rows_of(plan), cols = plan->n / rows;
    const int bits = (int)plan->option[BITS];
    const double *lambda = plan->state;
    uint32_t *index = atomo__claim_scratch(c), m = 0;
    float *work = (float *)(void *)(index + rows) + cols;
    atomo__draw draw = atomo__draw_of(&c->stream, c->fixed_few);
    double noisy = 0;
    for (int64_t i = 0; i < rows; i++) {
        double p = probability(plan, lambda[i]);
        if (p > 0) noisy += lambda[i] * lambda[i] / p;
        if (p > 0 && atomo__draw_next(&draw, (uint32_t)i, p)) index[m++] = (uint32_t)i;
    }
    plan->expected = plan->segment.expected;
    plan->sent = m;
    plan->variance = ATOMO_MAX(0, noisy - plan->square);
    atomo_stream stream = c->stream;
    stream.purpose = ATOMO_RNG_QUANT;
    atomo__write_indices(w, index, m, rows, false);
    for (uint32_t j = 0; j < m; j++) {
        const float *row = g + index[j] * cols;
        float scale = atomo__quant_scale(row, cols, bits);
        double sent = (double)scale / probability(plan, lambda[index[j]]);
        ATOMO_REQUIRE(sent <= (double)atomo__quant_limit(bits), ATOMO_ENONFINITE,
                      "%s: gradient of tensor %s: row %u over its probability leaves the range of f32",
                      plan->codec->name, plan->name, (unsigned)index[j] + 1);
        atomo__put_f32(w, (float)sent);
        atomo__quant_write(w, row, cols, bits, scale, &stream, j, work);
    }
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const int64_t rows = rows_of(plan), cols = plan->n / rows;
    uint32_t *index = atomo__claim_scratch(c);
    float *row = (float *)(void *)(index + rows);
    int64_t m = atomo__read_indices(r, rows, false, index);
    if (m < 0) return ATOMO_EFORMAT;
    for (int64_t j = 0; j < m; j++) {
        float coefficient = atomo__get_f32(r);
        atomo__quant_read(r, row, cols, (int)plan->option[BITS]);
        if (r->bad || !isfinite(coefficient)) return ATOMO_EFORMAT;
        atomo__add_scaled(row, cols, coefficient * scale, acc + index[j] * cols);
    }
    return ATOMO_OK;
}

const struct atomo_atoms atomo_atoms_rows = {
    .name = "rows",
    .summary = "whole rows (filters) of the gradient, entries in few bits",
    .source = "Wang et al., ATOMO, NeurIPS 2018, section 3 (structured sparsity)",
    .options = options,
    .stages =
        {.plan = plan, .measure = measure, .guess = guess, .price = price, .encode = encode, .decode_add = decode_add},
};
