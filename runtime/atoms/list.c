/* list.c - codes atoms that the caller computes, as rows of lambda_i and the factors of atom i; stages 4 to 6 of the
 * path. atomo.decomposition, in Lua, uses it for its messages.
 *
 * A "gradient" is a matrix [atoms, 1 + d]: column 0 is lambda, the others are the atom's one to three factors of widths
 * d_1 + d_2 + d_3 = d, the same for all atoms. Wang et al. 2018, Algorithm 1 keeps row i with probability p_i. A kept
 * row is sent as lambda_i / p_i and its factors in 32, 16, 8, ... bits, each rounded stochastically and independently.
 * E[lambda_hat a(f_hat)] = lambda a(f) for any function a with 32 bits, and with fewer bits for an a that is linear in
 * each factor. A factor of integers (ATOMO_INTEGERS) is sent exactly. The variance is exact if atoms are orthonormal
 * (and, below 32 bits, if an atom's norm is the product of its factors' norms). Decoding writes the drawn rows to the
 * front of the accumulator, which must be zero before.
 */
#include "codec/codec.h"
#include "core/carve.h"
#include <float.h>
#include <math.h>

enum { BITS, OPTIONS };
enum { MAX_FACTORS = sizeof((atomo__plan *)0)->factor_width / sizeof(int64_t) };
enum { LENGTH_BITS = 5, INTEGER_BITS = 26 }; /* of the length of an atom's integers; of the longest, +-2^24 zigzag */

static const struct atomo__option options[] = {
    {"bits", ATOMO_OPTION_INT, 32, 2, 32, "32|16|8|6|4|3|2",
     "bits of a factor's entry on the wire, stochastically rounded (below 32: atoms linear in each factor)"},
    {0}};

typedef struct {
    int64_t atoms, columns; /* rows and columns of the matrix */
    uint32_t taken;         /* atoms of the last message decoded */
    /* values [atoms], doubles, follow the struct in memory */
} state;

static double *values_of(const atomo__plan *plan)
{
    return (double *)((char *)plan->state + atomo__round_up(sizeof(state)));
}

static int plan(atomo__plan *plan)
{
    ATOMO_REQUIRE(plan->ndim == 2 && plan->shape[1] >= 2, ATOMO_ESHAPE,
                  "%s: tensor %s: expected [atoms, 1 + width of the factors]", plan->codec->name, plan->name);
    const atomo_codec *c = plan->codec;
    size_t atoms = (size_t)plan->shape[0], bits = 0;
    plan->elsewhere = true;
    plan->factors = ATOMO_MAX(c->list.factors, 1);
    for (int k = 0; k < plan->factors; k++) {
        const double own = c->list.factors ? c->list.bits[k] : 0;
        plan->factor_width[k] = c->list.factors ? (int64_t)c->list.width[k] : (int64_t)plan->shape[1] - 1;
        plan->factor_bits[k] = own == ATOMO_INTEGERS ? 0 : own > 0 ? (int)own : (int)plan->option[BITS];
        bits += own == ATOMO_INTEGERS ? LENGTH_BITS + INTEGER_BITS * (size_t)plan->factor_width[k]
                                      : (size_t)plan->factor_bits[k] * (size_t)plan->factor_width[k];
    }
    plan->scratch = sizeof(float) * ((size_t)plan->shape[1] - 1);
    plan->state_size = atomo__round_up(sizeof(state)) + sizeof(double) * atoms;
    plan->body_max = 16 + atoms * (4 + (bits + 7) / 8);
    return ATOMO_OK;
}

static int start(atomo__plan *plan)
{
    *(state *)plan->state = (state){.atoms = (int64_t)plan->shape[0], .columns = (int64_t)plan->shape[1]};
    return ATOMO_OK;
}

static bool is_width(int bits)
{
    return bits == 32 || bits == 16 || bits == 8 || bits == 6 || (bits >= 2 && bits <= 4);
}

/* Returns whether a factor's bits are not those of option bits. */
static bool has_own_bits(const atomo_codec *c)
{
    return c->list.bits[0] != 0 || c->list.bits[1] != 0 || c->list.bits[2] != 0;
}

int atomo_codec_list_bits(atomo_codec *c, double first, double second, double third)
{
    const double bits[MAX_FACTORS] = {first, second, third};
    for (int k = 0; k < MAX_FACTORS; k++)
        ATOMO_REQUIRE(bits[k] == 0 || bits[k] == ATOMO_INTEGERS ||
                          (bits[k] >= 2 && bits[k] <= 32 && bits[k] == floor(bits[k]) && is_width((int)bits[k])),
                      ATOMO_EARG, "%s: factor %d in %g bits, expected 32, 16, 8, 6, 4, 3 or 2", c->name, k + 1,
                      bits[k]);
    memcpy(c->list.bits, bits, sizeof bits);
    return ATOMO_OK;
}

int atomo_codec_plan_list(atomo_codec *c, int tensor, double atoms, int factors, const double *width, double entries,
                          const char *name)
{
    ATOMO_REQUIRE(c->atoms && c->atoms->stages.plan == plan, ATOMO_EARG, "%s: plan_list: expected a codec \"_list\"",
                  c->name);
    ATOMO_REQUIRE(factors >= 1 && factors <= MAX_FACTORS, ATOMO_EARG, "%s: %d factors per atom, expected 1 to %d",
                  c->name, factors, MAX_FACTORS);
    ATOMO_REQUIRE(entries >= 1 && entries < 0x1p31, ATOMO_ESHAPE, "%s: tensor %d has %g entries", c->name, tensor,
                  entries);
    double shape[2] = {atoms, 1};
    for (int k = 0; k < factors; k++) {
        ATOMO_REQUIRE(width[k] >= 1 && width[k] == floor(width[k]), ATOMO_ESHAPE,
                      "%s: tensor %d: factor %d of an atom has %g entries", c->name, tensor, k + 1, width[k]);
        shape[1] += width[k];
    }
    c->list.factors = factors;
    memcpy(c->list.width, width, sizeof(double) * (size_t)factors);
    const int rc = atomo_codec_plan(c, tensor, 2, shape, 0, name);
    c->list.factors = 0;
    if (rc < 0) return rc;
    atomo__plan *p = atomo__plan_of(c, tensor);
    p->hash ^= atomo__crc32(0, p->factor_width, sizeof p->factor_width) & 0xFFFF;
    if (has_own_bits(c)) p->hash ^= atomo__crc32(0, p->factor_bits, sizeof p->factor_bits) & 0xFFFF;
    c->entries += entries - (double)p->n; /* budgets count the gradient's entries, not those of the matrix */
    p->n = (int64_t)entries;
    return ATOMO_OK;
}

/* Returns the product of E||rounded factor||^2 / ||factor||^2 over all factors of a row. */
static double growth(const atomo__plan *plan, const float *row)
{
    double all = 1;
    for (int k = 0; k < plan->factors; row += plan->factor_width[k++]) {
        double square, noise;
        if (plan->factor_bits[k] == 0 || plan->factor_bits[k] == 32) continue;
        atomo__quant_variance(row, plan->factor_width[k], plan->factor_bits[k], &square, &noise);
        if (square > 0) all *= 1 + noise / square;
    }
    return all;
}

/* Integers: zigzag codes of one length, which is written before them. */
static uint32_t zigzag(float x)
{
    return x < 0 ? 2 * (uint32_t)-x - 1 : 2 * (uint32_t)x;
}

/* Returns the bits of the longest zigzag code of x [n]. */
static int length_of(const float *x, int64_t n)
{
    uint32_t all = 0;
    int bits = 0;
    for (int64_t j = 0; j < n; j++) all |= zigzag(x[j]);
    for (; all; all >>= 1) bits++;
    return bits;
}

static void write_integers(atomo__writer *w, const float *x, int64_t n)
{
    const int bits = length_of(x, n);
    atomo__put(w, (uint32_t)bits, LENGTH_BITS);
    for (int64_t j = 0; j < n && bits; j++) atomo__put(w, zigzag(x[j]), bits);
}

static void read_integers(atomo__reader *r, float *x, int64_t n)
{
    const int bits = (int)atomo__get(r, LENGTH_BITS);
    if (bits > INTEGER_BITS) r->bad = true;
    for (int64_t j = 0; j < n && !r->bad; j++) {
        const uint32_t code = bits ? (uint32_t)atomo__get(r, bits) : 0;
        x[j] = code & 1 ? -(float)((code >> 1) + 1) : (float)(code >> 1);
    }
}

/* *bits: of the factors of a row; raises unless factors of integers are whole numbers up to 2^24. */
static int bits_of(const atomo__plan *plan, const float *row, double *bits)
{
    *bits = 0;
    for (int k = 0; k < plan->factors; row += plan->factor_width[k++]) {
        const int64_t n = plan->factor_width[k];
        *bits += plan->factor_bits[k] ? plan->factor_bits[k] * (double)n : LENGTH_BITS;
        if (plan->factor_bits[k]) continue;
        for (int64_t j = 0; j < n; j++)
            ATOMO_REQUIRE(fabsf(row[j]) <= 0x1p24f && row[j] == floorf(row[j]), ATOMO_EARG,
                          "%s: tensor %s: factor %d has entry %.9g, expected an integer from -2^24 to 2^24",
                          plan->codec->name, plan->name, k + 1, (double)row[j]);
        *bits += length_of(row, n) * (double)n;
    }
    return ATOMO_OK;
}

static int measure(atomo__plan *plan, const float *g, atomo__context *c)
{
    (void)c;
    const state *s = plan->state;
    double *value = values_of(plan), most_bits = 0, bits;
    plan->square = 0;
    for (int64_t i = 0; i < s->atoms; i++) {
        const float *row = g + i * s->columns;
        double sum, square;
        float most;
        atomo__measure(row, s->columns, &sum, &square, &most);
        ATOMO_REQUIRE(isfinite(sum), ATOMO_ENONFINITE, "%s: atom %.0f of tensor %s: lambda or a factor is NaN or Inf",
                      plan->codec->name, (double)i + 1, plan->name);
        ATOMO_TRY(bits_of(plan, row + 1, &bits));
        most_bits = ATOMO_MAX(most_bits, bits);
        plan->square += (double)row[0] * (double)row[0];
        value[i] = fabs((double)row[0]) * sqrt(growth(plan, row + 1));
    }
    plan->segment = (atomo__segment){.f64 = value, .n = s->atoms, .unit = 32.0 + most_bits};
    plan->fixed_bits = 16; /* the number of atoms, and the padding of the last byte */
    return ATOMO_OK;
}

/* Returns the keep-probability of an atom at the plan's T. */
static double probability(const atomo__plan *plan, double value)
{
    double t = plan->T * sqrt(plan->segment.unit);
    return value <= 0 ? 0 : value >= t ? 1 : value / t;
}

static int write_atom(const atomo__plan *plan, const float *row, double p, uint32_t number, const atomo__context *c,
                      atomo__writer *w)
{
    static const uint32_t purpose[MAX_FACTORS] = {ATOMO_RNG_QUANT_U, ATOMO_RNG_QUANT_V, ATOMO_RNG_QUANT};
    float scale[MAX_FACTORS];
    double weight = (double)row[0] / p;
    const float *factor = row + 1;
    for (int k = 0; k < plan->factors; factor += plan->factor_width[k++]) {
        const int bits = plan->factor_bits[k];
        scale[k] = bits ? atomo__quant_scale(factor, plan->factor_width[k], bits) : 1;
        weight *= (double)scale[k];
    }
    ATOMO_REQUIRE(fabs(weight) <= FLT_MAX, ATOMO_ENONFINITE,
                  "%s: tensor %s: lambda over its probability, %g, leaves the range of f32", plan->codec->name,
                  plan->name, weight);
    atomo__put_f32(w, (float)weight);
    factor = row + 1;
    for (int k = 0; k < plan->factors; factor += plan->factor_width[k++]) {
        const int bits = plan->factor_bits[k];
        atomo_stream stream = c->stream;
        stream.purpose = purpose[k];
        if (bits)
            atomo__quant_write(w, factor, plan->factor_width[k], bits, scale[k], &stream, number,
                               atomo__claim_scratch(c));
        else
            write_integers(w, factor, plan->factor_width[k]);
    }
    return ATOMO_OK;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const state *s = plan->state;
    const double *value = values_of(plan);
    atomo__draw draw = atomo__draw_of(&c->stream, c->fixed_few), again = draw;
    double noisy = 0;
    uint32_t sent = 0;
    for (int64_t i = 0; i < s->atoms; i++) {
        double p = probability(plan, value[i]);
        if (p > 0) noisy += value[i] * value[i] / p;
        sent += p > 0 && atomo__draw_next(&draw, (uint32_t)i, p);
    }
    plan->expected = plan->segment.expected;
    plan->sent = (double)sent;
    plan->variance = ATOMO_MAX(0, noisy - plan->square);
    atomo__put_varint(w, sent);
    uint32_t number = 0;
    for (int64_t i = 0; i < s->atoms; i++) {
        double p = probability(plan, value[i]);
        if (p > 0 && atomo__draw_next(&again, (uint32_t)i, p))
            ATOMO_TRY(write_atom(plan, g + i * s->columns, p, number++, c, w));
    }
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    state *s = plan->state;
    float *row = atomo__claim_scratch(c);
    uint32_t atoms = atomo__get_varint(r);
    s->taken = 0;
    if (r->bad || atoms > (uint64_t)s->atoms) return ATOMO_EFORMAT;
    s->taken = atoms;
    for (uint32_t i = 0; i < atoms; i++, acc += s->columns) {
        float weight = atomo__get_f32(r);
        float *at = row;
        for (int k = 0; k < plan->factors; at += plan->factor_width[k++]) {
            if (plan->factor_bits[k])
                atomo__quant_read(r, at, plan->factor_width[k], plan->factor_bits[k]);
            else
                read_integers(r, at, plan->factor_width[k]);
        }
        if (r->bad || !isfinite(weight)) return ATOMO_EFORMAT;
        acc[0] += scale * weight;
        for (int64_t j = 1; j < s->columns; j++) {
            if (!isfinite(row[j - 1])) return ATOMO_EFORMAT;
            acc[j] += row[j - 1];
        }
    }
    return ATOMO_OK;
}

double atomo_codec_taken(const atomo_codec *c, int tensor)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    return p && p->atoms && p->atoms->stages.plan == plan ? (double)((const state *)p->state)->taken : 0;
}

const struct atomo_atoms atomo_atoms_list = {
    .name = "_list",
    .summary = "atoms made elsewhere: coefficients and factors",
    .source = "Wang et al., ATOMO, NeurIPS 2018",
    .options = options,
    .stages = {.plan = plan, .start = start, .measure = measure, .encode = encode, .decode_add = decode_add},
};
