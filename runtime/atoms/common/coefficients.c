/* coefficients.c - codes coefficients x [n] in an orthonormal basis, each kept or dropped by itself, for `entry` and
 * the fixed transforms; stages 4 to 6 and 8 of the path.
 *
 * Wang et al. 2018, section 3: p_i = min(1, |x_i|/tau). A coefficient below tau is sent as sign * tau, so one float
 * serves all of them, and an atom costs its index and a sign. A coefficient above tau is always sent, as tau + j step
 * tau, where j is rounded stochastically and written in an Exp-Golomb code. With step = 0, or if the budget holds
 * everything, it is sent as f32. The message is unbiased. Its variance is the sum of |x|(tau - |x|) below tau, and of
 * (step tau)^2 f(1-f) above, where f is the fraction of j. Scratch memory: 4 bytes per coefficient.
 */
#include "atoms/common/coefficients.h"
#include "coding/prefix_code.h"
#include <float.h>
#include <math.h>

enum { VALUES_F32, VALUES_STEPS, ORDER_BITS = 4 };
/* The first guess of a price: a tenth of the atoms is above tau, with values of GUESSED_VALUE_BITS bits. */
static const double GUESSED_KEPT = 0.1;
/* Keeps a quotient finite if no atom fits. */
static const double NO_ATOMS = 1e-9;
enum { GUESSED_VALUE_BITS = 6, GUESSES = 4 }; /* GUESSES: rounds of the first guess */
/* The longest code of a value in the price: twice 31 bits. */
enum { MOST_VALUE_BITS = 62 };
/* Values are sent as steps only if the largest number of steps is below MOST_STEPS, so that it fits in an int32, and
 * the mean of log2(1 + steps) below MOST_LOG. */
static const double MOST_STEPS = 1e9, MOST_LOG = 20;
/* Values are sent as steps only if none can be rounded up to this or more, so that all stay finite. */
static const double LARGEST_ROUNDED = 0x1p127;
enum { CHUNK = 1024 };

static atomo__spectrum *spectrum_of(const atomo__plan *plan)
{
    return plan->state;
}

int atomo__entries_plan(atomo__plan *plan)
{
    const char *name = plan->codec->name;
    ATOMO_REQUIRE(plan->n < (int64_t)1 << 31, ATOMO_ELIMIT,
                  "%s: tensor %s has %.0f entries, at most 2^31-1 can be coded", name, plan->name, (double)plan->n);
    /* two index lists of at most n + 48 bits, signs, and 4 bytes per value */
    plan->body_max = (size_t)plan->n / 8 * 3 + 4 * (size_t)plan->n + 64;
    plan->scratch = sizeof(uint32_t) * (size_t)ATOMO_MAX(plan->n, 1);
    plan->state_size = sizeof(atomo__spectrum);
    return ATOMO_OK;
}

int atomo__entries_measure(atomo__plan *plan, const float *x, bool all)
{
    atomo__spectrum *s = spectrum_of(plan);
    atomo__spectrum_of(s, x, plan->n, all);
    s->open = !all;
    plan->segment = (atomo__segment){.spectrum = s, .n = plan->n, .unit = plan->priced_unit};
    plan->fixed_bits = plan->priced_fixed;
    plan->square = s->total * s->total / (double)plan->n; /* a guess, replaced by the anchor */
    return all ? atomo__spectrum_anchor(s, x, plan->n, INFINITY, &plan->square) : ATOMO_OK;
}

int atomo__entries_refine(atomo__plan *plan, const float *x)
{
    atomo__spectrum *s = spectrum_of(plan);
    const float cut = atomo__cut_of(plan->T * sqrt(plan->segment.unit));
    ATOMO_TRY(atomo__spectrum_anchor(s, x, plan->n, cut, &plan->square));
    if (!atomo__spectrum_misleads(s)) return ATOMO_OK;
    atomo__spectrum_of(s, x, plan->n, true);
    return atomo__spectrum_anchor(s, x, plan->n, cut, &plan->square);
}

/* Sets priced_unit and priced_fixed to the tangent of the message's length at `rest` drawn and `kept` saturated atoms.
 */
static void tangent(atomo__plan *plan, double rest, double kept, double value_bits)
{
    double n = (double)plan->n;
    double bits =
        ATOMO__ENTRIES_HEADER_BITS + atomo__index_bits(rest, n) + rest + atomo__index_bits(kept, n) + kept * value_bits;
    plan->priced_unit = 1 + atomo__index_price(ATOMO_MAX(rest, 1), n);
    plan->priced_fixed = bits - plan->priced_unit * (rest + kept);
}

void atomo__entries_guess(atomo__plan *plan, double bits)
{
    double n = (double)plan->n, s = ATOMO_MIN(bits / 8, n / 2);
    for (int i = 0; i < GUESSES; i++) { /* s: the number of atoms that fit */
        double each = (atomo__index_bits(s, n) + (1 + GUESSED_KEPT * GUESSED_VALUE_BITS) * s) / ATOMO_MAX(s, NO_ATOMS);
        s = ATOMO_MIN(ATOMO_MAX(bits - ATOMO__ENTRIES_HEADER_BITS, bits / 8) / each, n / 2);
    }
    tangent(plan, (1 - GUESSED_KEPT) * s, GUESSED_KEPT * s, GUESSED_VALUE_BITS);
}

/* Returns the order of the Exp-Golomb code for values with this mean of log2(1 + value). */
static int order_of(double mean_log)
{
    return ATOMO_MAX(0, ATOMO_MIN((int)(mean_log + 0.5), (1 << ORDER_BITS) - 1));
}

/* Returns the modelled bits of a value above tau and its sign: 2 + 2 floor(log2(1 + j / 2^k)) + k, where j is its
 * number of steps; or those of a float, where one value has so many steps that encode sends floats. */
static double value_bits(const atomo__segment *s, double tau, double step)
{
    const double size = step * tau;
    if (!(size > 0 && s->kept > 0)) return 32;
    const int k = order_of(atomo__spectrum_log2(s->spectrum, tau, tau, 1 / size, false));
    const double scale = ldexp(1 / size, -k);
    double value = 2 + k + 2 * atomo__spectrum_log2(s->spectrum, tau, tau * (1 - step / 2), scale, true);
    if (atomo__spectrum_most(s->spectrum) >= MOST_STEPS * size) value = ATOMO_MAX(value, 32);
    return ATOMO_MIN(value, MOST_VALUE_BITS);
}

void atomo__entries_price(atomo__plan *plan, double T, double step)
{
    const atomo__segment *s = &plan->segment;
    const double tau = T * sqrt(s->unit), value = value_bits(s, tau, step);
    tangent(plan, s->expected - s->kept, s->kept, value);
    if (!(tau > 0) && s->kept > 0) { /* all atoms are sent, as f32 */
        plan->priced_fixed += (plan->priced_unit - 32) * s->kept;
        plan->priced_unit = 32;
    }
}

/* Writes a sign and v < 2^31 in an Exp-Golomb code of order k. */
static inline void put_value(atomo__writer *w, uint32_t sign, uint32_t v, int k)
{
    uint64_t x = (uint64_t)v + ((uint64_t)1 << k);
    int bits = 63 - __builtin_clzll(x), zeros = bits - k;
    uint32_t low = (uint32_t)(x & (((uint64_t)1 << bits) - 1));
    if (bits + zeros + 2 <= 32) {
        atomo__put_code(w, sign | 2u << zeros | low << (zeros + 2), bits + zeros + 2);
        return;
    }
    atomo__put(w, sign, 1);
    atomo__put_unary(w, (uint64_t)zeros);
    atomo__put(w, low, bits);
}

/* code[i], bits[i] = code and length of n signed values. A length of more than 32 bits is given as 255. */
ATOMO_CLONES static void value_codes(const uint32_t *restrict kept, const uint32_t *restrict v, int n, int k,
                                     uint32_t *restrict code, uint32_t *restrict bits)
{
    const uint32_t order = (uint32_t)k;
    for (int i = 0; i < n; i++) {
        uint32_t x = v[i] + (1u << order), exact;
        float f = (float)(int32_t)(x & 0xFFFFFF);
        memcpy(&exact, &f, 4);
        uint32_t top = (exact >> 23) - 127, zeros = top - order; /* below 2^24 the exponent is floor(log2) */
        uint32_t low = x & ((1u << (top & 31)) - 1), length = top + zeros + 2;
        code[i] = kept[i] >> 31 | (low << 1 | 1) << ((zeros + 1) & 31);
        bits[i] = x < 1u << 24 && length <= 32 ? length : 255;
    }
}

static uint32_t get_steps(atomo__reader *r, int k)
{
    int bits = (int)atomo__get_unary(r, 31) + k;
    if (bits > 31) {
        r->bad = true;
        return 0;
    }
    return (uint32_t)((((uint64_t)1 << bits) | atomo__get(r, bits)) - ((uint64_t)1 << k));
}

/* code[i] = j[i], rounded up if its uniform is below the fraction, else down: (stratum[i] + words[i] / 2^32) / strata.
 */
ATOMO_CLONES static void round_steps(const double *j, const uint32_t *words, const uint32_t *stratum, int strata, int m,
                                     uint32_t *code)
{
    const double each = 1.0 / strata;
    for (int i = 0; i < m; i++) {
        int32_t down = (int32_t)j[i];
        code[i] = (uint32_t)(down + (((double)stratum[i] + (double)words[i] * 0x1p-32) * each < j[i] - (double)down));
    }
}

static void put_values(atomo__writer *w, const uint32_t *kept, const uint32_t *v, int n, int k)
{
    uint32_t code[ATOMO__CODES], bits[ATOMO__CODES];
    for (int i = 0; i < n; i += ATOMO__CODES) {
        int m = ATOMO_MIN((int)ATOMO__CODES, n - i);
        value_codes(kept + i, v + i, m, k, code, bits);
        for (int at = 0; at < m; at++) {
            at += atomo__put_codes(w, code + at, bits + at, m - at);
            if (at < m) put_value(w, kept[i + at] >> 31, v[i + at], k);
        }
    }
}

/* Returns the bits of v and its sign in an Exp-Golomb code of order k. */
static double code_bits(double v, int k)
{
    return 2 + k + 2 * floor(log2(1 + ldexp(v, -k)));
}

/* Returns whether the values as steps take no more bits than as floats. Every value counts as rounded up, because the
 * decision must not depend on random numbers. */
static bool steps_fit(const float *x, const uint32_t *kept, int64_t m, double tau, double step, int k, double most)
{
    if (code_bits(most + 1, k) <= 32) return true;
    double j[CHUNK], bits = ORDER_BITS;
    for (int64_t i = 0; i < m; i += CHUNK) {
        const int count = (int)ATOMO_MIN((int64_t)CHUNK, m - i);
        atomo__steps_of(x, 0, kept + i, count, tau, 1 / (step * tau), j);
        for (int l = 0; l < count; l++) bits += code_bits(j[l] + 1, k);
    }
    return bits <= 32 * (double)m;
}

static void write_steps(atomo__writer *w, const float *x, const uint32_t *kept, int64_t m, double tau, double step,
                        double mean_log, atomo_stream stream, const atomo__strata *strata)
{
    const int k = order_of(mean_log);
    uint32_t words[CHUNK], stratum[CHUNK], code[CHUNK];
    atomo__strata_reader strata_of = {.strata = strata, .chunk = -1};
    double j[CHUNK];
    atomo__writer own = *w; /* a local copy stays in registers */
    stream.purpose = ATOMO_RNG_QUANT;
    atomo__put(&own, (uint32_t)k, ORDER_BITS);
    for (int64_t i = 0; i < m; i += CHUNK) {
        int count = (int)ATOMO_MIN((int64_t)CHUNK, m - i);
        atomo__random_words(&stream, (uint32_t)(i / 4), CHUNK / 4, words);
        atomo__steps_of(x, 0, kept + i, count, tau, 1 / (step * tau), j);
        for (int l = 0; l < count; l++)
            stratum[l] = atomo__stratum_at(&strata_of, kept[i + l] & ~ATOMO__MINUS, kept[i + l] >> 31);
        round_steps(j, words, stratum, 1 << strata->bits, count, code);
        put_values(&own, kept + i, code, count, k);
    }
    *w = own;
}

/* Returns tau as the f32 that drawing, the message and the variance use. */
static float tau_of(const atomo__plan *plan)
{
    const double tau = plan->T * sqrt(plan->segment.unit);
    return plan->T > 0 ? ATOMO_MIN(atomo__cut_of(tau), FLT_MAX) : 0; /* a larger one could not be sent */
}

int atomo__entries_encode(atomo__plan *plan, const float *x, double step, uint32_t *index, const atomo__context *c,
                          atomo__writer *w)
{
    const float tau = tau_of(plan);
    atomo__drawn d;
    atomo__strata strata = c->strata;
    /* A stream for each basis, since with auto another rank may have chosen another one. */
    strata.shared.rank |= (atomo__crc32(0, plan->atoms->name, strlen(plan->atoms->name)) & 255) << 16;
    atomo__sample_entries(x, plan->n, tau, &c->stream, &strata, c->fixed_count, step, index, &d);
    const uint32_t *kept = index + plan->n - d.kept;
    const double size = step * (double)tau, mean_log = d.kept > 0 ? d.saturated.logs / (double)d.kept : 0;
    /* all are sent as f32 if a value has too many steps, might be rounded up to infinity, or if steps take more bits */
    const bool near = (double)tau * (1 + step * (d.saturated.most + 1)) < LARGEST_ROUNDED;
    const bool steps = step > 0 && tau > 0 && d.saturated.most < MOST_STEPS && mean_log < MOST_LOG && near &&
                       steps_fit(x, kept, d.kept, (double)tau, step, order_of(mean_log), d.saturated.most);
    plan->sent = (double)(d.drawn + d.kept);
    plan->expected = (double)d.kept + (tau > 0 ? d.below / (double)tau : 0);
    plan->variance = d.noise + (steps ? size * size * d.saturated.rounding : 0);
    atomo__put(w, steps ? VALUES_STEPS : VALUES_F32, 1);
    atomo__put_f32(w, tau);
    atomo__write_indices(w, index, d.drawn, plan->n, true);
    atomo__write_indices(w, kept, d.kept, plan->n, false);
    if (d.kept == 0) return ATOMO_OK;
    if (steps) {
        write_steps(w, x, kept, d.kept, (double)tau, step, mean_log, c->stream, &strata);
        return ATOMO_OK;
    }
    for (int64_t i = 0; i < d.kept; i++) atomo__put_f32(w, x[kept[i] & ~ATOMO__MINUS]);
    return ATOMO_OK;
}

/* value [m] = numbers of steps, with signs in the top bit. */
static void read_steps(atomo__reader *r, int k, int m, uint32_t *value)
{
    for (int i = 0; i < m && !r->bad; i++) {
        i += (int)atomo__get_values(r, k, m - i, value + i);
        if (i == m) return;
        uint32_t sign = atomo__get(r, 1), v = get_steps(r, k);
        if (v >> 31) r->bad = true;
        value[i] = v | sign << 31;
    }
}

ATOMO_CLONES static void values_of_steps(const uint32_t *step, int m, float tau, float size, float *value)
{
    for (int i = 0; i < m; i++) {
        float v = tau + (float)(int32_t)(step[i] & ~ATOMO__MINUS) * size;
        value[i] = step[i] >> 31 ? -v : v;
    }
}

static int read_values(atomo__reader *r, const uint32_t *index, int64_t m, bool steps, float tau, float size,
                       float scale, float *acc)
{
    const int k = m > 0 && steps ? (int)atomo__get(r, ORDER_BITS) : 0;
    atomo__reader own = *r;
    uint32_t step[CHUNK];
    float value[CHUNK];
    for (int64_t at = 0; at < m && !own.bad; at += CHUNK) {
        const int count = (int)ATOMO_MIN((int64_t)CHUNK, m - at);
        if (steps) {
            read_steps(&own, k, count, step);
            if (own.bad) break;
            values_of_steps(step, count, tau, size, value);
        }
        for (int i = 0; i < count && !steps; i++) value[i] = atomo__get_f32(&own);
        bool finite = true;
        for (int i = 0; i < count; i++) {
            finite &= isfinite(value[i]) != 0;
            acc[index[at + i]] += scale * value[i];
        }
        if (!finite) return ATOMO_EFORMAT;
    }
    *r = own;
    return ATOMO_OK;
}

int atomo__entries_decode_add(int64_t n, double step, atomo__reader *r, uint32_t *index, float scale, float *acc)
{
    bool steps = atomo__get(r, 1) == VALUES_STEPS;
    float tau = atomo__get_f32(r);
    if (r->bad || !(tau >= 0) || !isfinite(tau)) return ATOMO_EFORMAT;
    int64_t m = atomo__read_indices(r, n, true, index);
    if (m < 0) return ATOMO_EFORMAT;
    const float add[2] = {scale * tau, -(scale * tau)};
    for (int64_t i = 0; i < m; i++) acc[index[i] & ~ATOMO__MINUS] += add[index[i] >> 31];
    m = atomo__read_indices(r, n, false, index);
    if (m < 0) return ATOMO_EFORMAT;
    return read_values(r, index, m, steps, tau, (float)((double)tau * step), scale, acc);
}
