/* entry.c - entry atoms: the tensor's own coordinates; stage 4 of the path.
 *
 * Wang et al. 2018, section 3: lambda_i = g_i, p_i = min(1, |g_i|/tau). An entry below tau is sent as sign * tau, so
 * one float serves all and an atom costs its index and a sign: with s = ||g||_1/||g||_q this is 1-bit QSGD (q = 2) and
 * TernGrad (q = inf). An entry above tau is always sent, as tau + j step tau with j stochastically rounded (DESIGN 5.2:
 * b-bit QSGD = floor exactly + a draw for the remainder) in an Exp-Golomb code; step = 0, and a budget that holds
 * everything, send it as it is. Promise: unbiased; variance sum |g|(tau - |g|) below tau and (step tau)^2 f(1-f) above;
 * scratch 4 bytes an entry.
 */
#include "coding/coding.h"
#include <math.h>

enum { STEP, OPTIONS };
enum { VALUES_F32, VALUES_STEPS, ORDER_BITS = 4 };

static const struct atomo__option options[] = {
    {"step", ATOMO_OPTION_FLOAT, 0.25, 0, 4, NULL,
     "precision of entries above tau, in units of tau (stochastically rounded, unbiased); 0: exact f32"},
    {0}};

static int plan(atomo__part *part)
{
    ATOMO_REQUIRE(part->n < (int64_t)1 << 31, ATOMO_ELIMIT,
                  "entry: tensor %s has %.0f entries, at most 2^31-1 can be coded", part->name, (double)part->n);
    /* two index lists of at most n + 48 bits, signs, and 4 bytes a value */
    part->body_max = (size_t)part->n / 8 * 3 + 4 * (size_t)part->n + 64;
    part->scratch = sizeof(uint32_t) * (size_t)ATOMO_MAX(part->n, 1);
    return ATOMO_OK;
}

static int measure(atomo__part *part, const float *g, atomo__coder *c)
{
    (void)c;
    double sum;
    float largest;
    atomo__measure(g, part->n, &sum, &part->square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(part, g);
    part->segment = (atomo__segment){.f32 = g, .n = part->n, .unit = part->priced_unit};
    part->fixed_bits = part->priced_fixed;
    return ATOMO_OK;
}

enum { HEADER_BITS = 1 + 32 + 2 * 8 + 14 }; /* form, tau, counts, list headers */

/* The tangent of the message's length at `rest` drawn and `kept` saturated atoms. */
static void tangent(atomo__part *part, double rest, double kept, double value_bits)
{
    double n = (double)part->n;
    double bits = HEADER_BITS + atomo__index_bits(rest, n) + rest + atomo__index_bits(kept, n) + kept * value_bits;
    part->priced_unit = 1 + atomo__index_price(ATOMO_MAX(rest, 1), n);
    part->priced_fixed = bits - part->priced_unit * (rest + kept);
}

static void guess(atomo__part *part, double bits)
{
    double n = (double)part->n, s = ATOMO_MIN(bits / 8, n / 2);
    for (int i = 0; i < 4; i++) { /* as many atoms as fit, a tenth of them above tau */
        double each = (atomo__index_bits(s, n) + 1.6 * s) / ATOMO_MAX(s, 1e-9);
        s = ATOMO_MIN(ATOMO_MAX(bits - HEADER_BITS, bits / 8) / each, n / 2);
    }
    tangent(part, 0.9 * s, 0.1 * s, 6);
}

/* Exp-Golomb order that suits values of this mean. */
static int order_of(double mean)
{
    return mean > 1 ? ATOMO_MIN((int)log2(mean), 15) : 0;
}

enum { PROBES = 1 << 16 };

/* Mean bits of an entry's value above tau: over all entries of a small tensor, an even sample of a large one. */
static double value_bits(const atomo__part *part, double tau, double step)
{
    const atomo__segment *s = &part->segment;
    const int k = order_of(ATOMO_MAX(0, s->kept_sum / s->kept / tau - 1) / step);
    const int64_t stride = ATOMO_MAX(part->n / PROBES, 1);
    const float cut = (float)tau;
    double bits = 0, count = 0;
    for (int64_t i = 0; i < part->n; i += stride) {
        float a = fabsf(s->f32[i]);
        if (a < cut) continue;
        double x = ldexp(((double)a - tau) / (step * tau) + 0.5, -k) + 1; /* 1 + 2 floor(log2 x) + k, and the sign */
        bits += ATOMO_MIN(2 + k + 2 * ilogb(x), 62);
        count++;
    }
    return count > 0 ? bits / count : 2 + k;
}

static void price(atomo__part *part, double T)
{
    const atomo__segment *s = &part->segment;
    double tau = T * sqrt(s->unit), step = part->option[STEP], value = 32;
    if (step > 0 && tau > 0 && s->kept > 0) value = value_bits(part, tau, step);
    tangent(part, s->expected - s->kept, s->kept, value);
    if (!(tau > 0) && s->kept > 0) { /* all of it, exactly */
        part->priced_fixed += (part->priced_unit - 32) * s->kept;
        part->priced_unit = 32;
    }
}

static void put_exp_golomb(atomo__writer *w, uint32_t v, int k) /* v < 2^31 */
{
    uint64_t x = (uint64_t)v + ((uint64_t)1 << k);
    int bits = 63 - __builtin_clzll(x);
    atomo__put_unary(w, (uint64_t)(bits - k));
    atomo__put(w, (uint32_t)(x & (((uint64_t)1 << bits) - 1)), bits);
}

static uint32_t get_exp_golomb(atomo__reader *r, int k)
{
    int bits = (int)atomo__get_unary(r, 31) + k;
    if (bits > 31) {
        r->bad = true;
        return 0;
    }
    return (uint32_t)((((uint64_t)1 << bits) | atomo__get(r, bits)) - ((uint64_t)1 << k));
}

typedef struct {
    double square;               /* of the entries above tau */
    double mean, most, rounding; /* of their steps above tau, and the closed form of rounding those */
    int64_t kept;
} saturated;

static saturated survey(const float *g, const uint32_t *index, int64_t m, double tau, double step)
{
    saturated s = {0};
    for (int64_t i = 0; i < m; i++) {
        if (!(index[i] & ATOMO__SATURATED)) continue;
        s.kept++;
        double v = fabs((double)g[index[i] & ~ATOMO__SATURATED]);
        double j = tau > 0 && step > 0 ? (v - tau) / (step * tau) : 0, f = j - floor(j);
        s.square += v * v;
        s.mean += j;
        s.most = ATOMO_MAX(s.most, j);
        s.rounding += f * (1 - f);
    }
    s.rounding *= step * step * tau * tau;
    if (s.kept) s.mean /= (double)s.kept;
    return s;
}

static void write_values(atomo__writer *w, const float *g, const uint32_t *index, int64_t m, double tau, double step,
                         double mean, atomo_stream stream)
{
    int k = order_of(mean);
    stream.purpose = ATOMO_RNG_QUANT;
    atomo__put(w, (uint32_t)k, ORDER_BITS);
    for (int64_t i = 0; i < m; i++) {
        if (!(index[i] & ATOMO__SATURATED)) continue;
        uint32_t at = index[i] & ~ATOMO__SATURATED;
        double j = (fabs((double)g[at]) - tau) / (step * tau), f = j - floor(j);
        uint32_t q = (uint32_t)floor(j) + (atomo__sample_one(&stream, at, f) ? 1 : 0);
        atomo__put(w, g[at] < 0, 1);
        put_exp_golomb(w, q, k);
    }
}

/* tau as the float that the sampler, the message and the closed form share. */
static float tau_of(const atomo__part *part)
{
    double tau = part->T * sqrt(part->segment.unit);
    if (tau > (double)3.4e38f) return INFINITY;
    return tau > 0 && (float)tau == 0 ? 0x1p-149f : (float)tau;
}

static void account(atomo__part *part, float tau, const saturated *s, int64_t m, bool steps)
{
    double below = part->segment.rest_sum / sqrt(part->segment.unit), square = ATOMO_MAX(0, part->square - s->square);
    part->expected = part->segment.expected;
    part->sent = (double)m;
    part->variance = isfinite(tau) ? ATOMO_MAX(0, (double)tau * below - square) : part->square;
    if (steps) part->variance += s->rounding;
}

static int encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w)
{
    uint32_t *index = c->scratch;
    const double step = part->option[STEP];
    const float tau = tau_of(part);
    int64_t m = atomo__sample_entries(g, part->n, tau, &c->stream, index);
    saturated s = survey(g, index, m, (double)tau, step);
    /* entries a billion times tau, or near the end of the range, are sent as they are, and so are all then */
    bool steps = step > 0 && tau > 0 && isfinite(tau) && s.most < 1e9 && s.mean < 1e6 && s.square < 1e75;
    account(part, tau, &s, m, steps);
    atomo__put(w, steps ? VALUES_STEPS : VALUES_F32, 1);
    atomo__put_f32(w, isfinite(tau) ? tau : 0);
    atomo__write_indices(w, index, m, 0, m - s.kept, part->n);
    for (int64_t i = 0; i < m; i++)
        if (!(index[i] & ATOMO__SATURATED)) atomo__put(w, g[index[i]] < 0, 1);
    atomo__write_indices(w, index, m, ATOMO__SATURATED, s.kept, part->n);
    if (s.kept == 0) return ATOMO_OK;
    if (steps) {
        write_values(w, g, index, m, (double)tau, step, s.mean, c->stream);
        return ATOMO_OK;
    }
    for (int64_t i = 0; i < m; i++)
        if (index[i] & ATOMO__SATURATED) atomo__put_f32(w, g[index[i] & ~ATOMO__SATURATED]);
    return ATOMO_OK;
}

static int decode_add(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc)
{
    uint32_t *index = c->scratch;
    bool steps = atomo__get(r, 1) == VALUES_STEPS;
    float tau = atomo__get_f32(r);
    if (r->bad || !(tau >= 0) || !isfinite(tau)) return ATOMO_EFORMAT;
    int64_t m = atomo__read_indices(r, part->n, index);
    if (m < 0) return ATOMO_EFORMAT;
    const float add = scale * tau;
    for (int64_t i = 0; i < m; i++) acc[index[i]] += atomo__get(r, 1) ? -add : add;
    m = r->bad ? -1 : atomo__read_indices(r, part->n, index);
    if (m < 0) return ATOMO_EFORMAT;
    int k = m > 0 && steps ? (int)atomo__get(r, ORDER_BITS) : 0;
    const float size = (float)((double)tau * part->option[STEP]);
    for (int64_t i = 0; i < m && !r->bad; i++) {
        float v;
        if (steps) {
            bool minus = atomo__get(r, 1);
            v = tau + (float)get_exp_golomb(r, k) * size;
            v = minus ? -v : v;
        } else {
            v = atomo__get_f32(r);
        }
        if (!isfinite(v)) return ATOMO_EFORMAT;
        acc[index[i]] += scale * v;
    }
    return ATOMO_OK;
}

const struct atomo_atoms atomo_atoms_entry = {
    .name = "entry",
    .summary = "single entries, kept in proportion to their size",
    .source = "Wang et al., ATOMO, NeurIPS 2018, section 3",
    .options = options,
    .plan = plan,
    .measure = measure,
    .guess = guess,
    .price = price,
    .encode = encode,
    .decode_add = decode_add,
};
