/* factors.c - bodies of spectral atoms with rotated factors; stages 5, 6 and 8 of the path.
 *
 * A body begins with the number of atoms, the exponent, and T as the upper half of a float. Then each drawn atom
 * follows: the level of lambda^2, as the difference to the level of the atom before, then its short factor and its long
 * factor. A factor is a sequence of rotated units, or, if it is short, a scale and codes of a few bits. Both sides
 * compute the quantisers and the probability from the level and T; the long factor is divided by the probability
 * (rates.c). If both factors are short, there is no T, and an atom is written as the number of bits of its codes, a
 * coefficient, and the codes of both factors.
 */
#include "atoms/svd/state.h"
#include "atoms/common/rotated_unit.h"
#include <float.h>
#include <math.h>

/* Exp-Golomb orders: of the first level, and of each further level's difference to the one before. */
enum { FIRST_ORDER = 8, LEVEL_ORDER = 1 };
enum { SCALE_BITS = 16 }; /* of a short factor */

/* The most bytes of a factor: for a unit 24 bits an entry, a scale, and the coder's state. */
static size_t factor_most(int64_t n)
{
    size_t bytes = 0;
    if (n < SVD_LEAST_ROTATED) return 4 + ((size_t)n * 12 + 7) / 8;
    for (atomo__rotation_units u = {.left = n}; atomo__rotation_next(&u);) bytes += 16 + 3 * (size_t)u.size;
    return bytes;
}

size_t svd_rotated_most(const svd_state *s)
{
    return 16 + (size_t)s->k * (8 + factor_most(s->k) + factor_most(s->l));
}

static atomo__unit unit_of(const svd_place *at, const atomo__rotation_units *u, const svd_coding *f, double e,
                           double keep, uint32_t *index)
{
    return (atomo__unit){.stream = at->stream,
                         .block = u->block,
                         .number = u->number,
                         .size = u->size,
                         .e = e * (double)u->count / (double)u->size,
                         .rate = {.quantiser = f->quantiser, .keep = keep},
                         .index = index};
}

static void pass_by(svd_place *at, const atomo__rotation_units *last)
{
    at->block = last->block + atomo__rotation_blocks(last->size);
    at->number = last->number + 1;
}

/* ||x||^2 before coding, and after it: in this draw, or expected. */
typedef struct {
    double before, after;
} squares;

/* Rounds x to the codes of a unit `scale`, which are written. */
static squares write_codes(const float *x, int64_t n, int bits, float scale, const svd_place *at, uint32_t purpose,
                           const svd_scratch *m, atomo__writer *w)
{
    atomo_stream stream = at->stream;
    stream.purpose = purpose;
    squares all;
    atomo__quant_write(w, x, n, bits, scale, &stream, at->number, m->uniforms);
    atomo__quant_variance(x, n, bits, &all.before, &all.after);
    all.after += all.before;
    return all;
}

/* The upper half of a float, rounded up. */
static uint32_t half_above(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits + 0xffff) >> 16;
}

/* Writes x [n] divided by keep; e: the mean square of an entry that the reader expects. Short ones have keep = 1. */
static squares write_factor(const float *x, int64_t n, const svd_coding *f, double e, double keep, svd_place *at,
                            const svd_scratch *m, atomo__writer *w)
{
    squares all = {0};
    if (f->quantiser < 0) {
        const uint32_t half = half_above(atomo__quant_scale(x, n, f->bits));
        atomo__put(w, half, SCALE_BITS);
        all = write_codes(x, n, f->bits, (float)atomo__price_of_half(half), at, ATOMO_RNG_QUANT_U, m, w);
        at->number++;
        return all;
    }
    atomo__rotation_units u = {.left = n, .block = at->block, .number = at->number};
    while (atomo__rotation_next(&u)) {
        const atomo__unit unit = unit_of(at, &u, f, e, keep, m->index);
        double sum, square, sent;
        float most;
        atomo__measure(x + u.at, u.count, &sum, &square, &most);
        if (!(square > 0)) {
            atomo__unit_write_zeros(w);
            continue;
        }
        memcpy(m->unit, x + u.at, sizeof(float) * (size_t)u.count);
        memset(m->unit + u.count, 0, sizeof(float) * (size_t)(u.size - u.count));
        const double loss = atomo__unit_write(&unit, m->unit, square, w, &sent);
        all.before += square;
        all.after += square * (1 + loss * (double)(u.count - 1) / (double)(u.size - 1)); /* without the padding's */
    }
    pass_by(at, &u);
    return all;
}

static bool read_codes(atomo__reader *r, float *x, int64_t n, int bits, float scale)
{
    atomo__quant_read(r, x, n, bits);
    for (int64_t i = 0; i < n; i++) x[i] *= scale;
    return !r->bad && isfinite(scale) && fabsf(scale) <= atomo__quant_limit(bits);
}

static bool read_factor(atomo__reader *r, float *x, int64_t n, const svd_coding *f, double e, double keep,
                        svd_place *at, const svd_scratch *m)
{
    if (f->quantiser < 0) {
        at->number++;
        return read_codes(r, x, n, f->bits, (float)atomo__price_of_half(atomo__get(r, SCALE_BITS)));
    }
    atomo__rotation_units u = {.left = n, .block = at->block, .number = at->number};
    while (atomo__rotation_next(&u)) {
        const atomo__unit unit = unit_of(at, &u, f, e, keep, m->index);
        if (!atomo__unit_read(&unit, r, 1, m->unit)) return false;
        memcpy(x + u.at, m->unit, sizeof(float) * (size_t)u.count);
    }
    pass_by(at, &u);
    return true;
}

static svd_place place_of(const atomo__context *c, double T)
{
    svd_place at = {.stream = c->stream, .price = T * T};
    at.stream.purpose = ATOMO_RNG_ROTATE;
    return at;
}

/* An atom of the scaled matrix. */
typedef struct {
    double square; /* lambda^2, as measured */
    int level;
    const svd_rate *rate;
    double keep;
} atom;

typedef struct {
    atom atom[SVD_BLOCK];
    int count;
} block;

/* False if atom i is zero. */
static bool atom_of(const svd_state *s, int64_t i, double price, atom *a)
{
    a->square = ldexp(s->lambda[i] * s->lambda[i], 2 * s->exponent);
    if (!(a->square > 0)) return false;
    a->level = svd_level_of(a->square);
    a->rate = svd_rate_of(&s->rates, svd_square_of(a->level), price, &a->keep);
    return true;
}

/* The expected squared error of an atom that was not sent in this draw, whose long factor is rotated. */
static double error_of(const svd_state *s, int64_t i, const atom *a)
{
    double square, variance = a->rate->shorter.loss;
    if (a->rate->shorter.quantiser < 0)
        atomo__quant_variance(s->basis + i * s->k, s->k, a->rate->shorter.bits, &square, &variance);
    return a->square * ((1 + variance) * (1 + a->rate->longer.loss) / a->keep - 1);
}

/* Each function writes an atom; returns ||w v^T||^2, and E||what vhat^T||^2 without the division by keep. */
static squares write_rounded(const svd_state *s, const atom *a, const float *shorts, const float *longs, svd_place *at,
                             const svd_scratch *m, atomo__writer *w)
{
    const int bits = a->rate->longer.bits;
    const float scale[2] = {atomo__quant_scale(shorts, s->k, bits), atomo__quant_scale(longs, s->l, bits)};
    atomo__put(w, (uint32_t)bits, SVD_WIDTH_BITS);
    atomo__put_f32(w, (float)ATOMO_MIN((double)scale[0] * (double)scale[1] / a->keep, (double)FLT_MAX));
    const squares x = write_codes(shorts, s->k, bits, scale[0], at, ATOMO_RNG_QUANT_U, m, w);
    const squares y = write_codes(longs, s->l, bits, scale[1], at, ATOMO_RNG_QUANT_V, m, w);
    at->number++;
    return (squares){x.before * y.before, x.after * y.after};
}

static squares write_rotated(const svd_state *s, const atom *a, const float *shorts, const float *longs, svd_place *at,
                             const svd_scratch *m, atomo__writer *w)
{
    const double e = svd_square_of(a->level) / (double)s->l;
    atomo__put_exp_golomb(w, atomo__zigzag(a->level - at->level), at->number ? LEVEL_ORDER : FIRST_ORDER);
    at->level = a->level;
    const squares x = write_factor(shorts, s->k, &a->rate->shorter, 1 / (double)s->k, 1, at, m, w);
    const squares y = write_factor(longs, s->l, &a->rate->longer, e, a->keep, at, m, w);
    return (squares){x.before * y.before, x.after * y.after};
}

/* Writes the atoms of a block, whose short factors are in m->shorts. Returns their expected squared error, with the
 * rounding of this draw. */
static double write_block(const svd_state *s, const float *matrix, const block *b, svd_place *at, const svd_scratch *m,
                          atomo__writer *w)
{
    double error = 0;
    atomo__svd_project(s, matrix, m->shorts, b->count, m->longs);
    for (int j = 0; j < b->count; j++) {
        const atom *a = &b->atom[j];
        const squares x = (svd_rounds_all(s->l) ? write_rounded : write_rotated)(s, a, m->shorts + j * s->k,
                                                                                 m->longs + j * s->l, at, m, w);
        error += x.after / a->keep - x.before;
    }
    return error;
}

/* Counts the atoms that this step draws, and those that are expected. */
static void count_atoms(atomo__plan *plan, double price, atomo__draw draw)
{
    const svd_state *s = plan->state;
    atom a;
    plan->expected = plan->sent = 0;
    for (int64_t i = 0; i < s->k; i++) {
        if (!atom_of(s, i, price, &a)) continue;
        plan->expected += a.keep;
        plan->sent += atomo__draw_next(&draw, (uint32_t)i, a.keep);
    }
}

static void add_to_block(const svd_state *s, int64_t i, block *b, const svd_scratch *m)
{
    memcpy(m->shorts + b->count * s->k, s->basis + i * s->k, sizeof(float) * (size_t)s->k);
    b->count++;
}

/* Returns the expected squared error of atoms that were not sent in this draw, whose factors are both rounded. The
 * rounding of a factor depends on its entries, and that of few large ones is far above the usual. */
static double error_of_rounded(const svd_state *s, const float *matrix, const block *b, const svd_scratch *m)
{
    double error = 0;
    atomo__svd_project(s, matrix, m->shorts, b->count, m->longs);
    for (int j = 0; j < b->count; j++) {
        const atom *a = &b->atom[j];
        double w, v, ew, ev;
        atomo__quant_variance(m->shorts + j * s->k, s->k, a->rate->longer.bits, &w, &ew);
        atomo__quant_variance(m->longs + j * s->l, s->l, a->rate->longer.bits, &v, &ev);
        error += (w + ew) * (v + ev) / a->keep - w * v;
    }
    return error;
}

/* The same of all atoms that `draw` leaves out. */
static double error_unsent(const svd_state *s, const float *matrix, double price, atomo__draw draw,
                           const svd_scratch *m)
{
    double error = 0;
    block b = {.count = 0};
    for (int64_t i = 0; i < s->k; i++) {
        atom *a = &b.atom[b.count];
        if (!atom_of(s, i, price, a) || atomo__draw_next(&draw, (uint32_t)i, a->keep)) continue;
        add_to_block(s, i, &b, m);
        if (b.count < SVD_BLOCK) continue;
        error += error_of_rounded(s, matrix, &b, m);
        b.count = 0;
    }
    return b.count ? error + error_of_rounded(s, matrix, &b, m) : error;
}

int svd_rotated_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const svd_state *s = plan->state;
    const svd_scratch m = atomo__svd_scratch_of(s, c);
    const uint32_t half = atomo__half_of_price(plan->T * s->rates.price_unit);
    const bool rounds = svd_rounds_all(s->l);
    atomo__draw draw = atomo__draw_of(&c->stream, c->fixed_few), again = draw;
    svd_place at = place_of(c, atomo__price_of_half(half));
    count_atoms(plan, at.price, draw);
    atomo__put_varint(w, (uint32_t)plan->sent);
    atomo__put(w, (uint32_t)(s->exponent + SVD_EXPONENT_BIAS), SVD_EXPONENT_BITS);
    if (!rounds) atomo__put(w, half, SVD_PRICE_BITS);
    const float *matrix = atomo__svd_matrix(s, g, &m);
    block b = {.count = 0};
    double error = 0;
    for (int64_t i = 0; i < s->k; i++) {
        atom *a = &b.atom[b.count];
        if (!atom_of(s, i, at.price, a)) continue;
        if (!atomo__draw_next(&draw, (uint32_t)i, a->keep)) {
            error += rounds ? 0 : error_of(s, i, a);
            continue;
        }
        add_to_block(s, i, &b, &m);
        if (b.count < SVD_BLOCK) continue;
        error += write_block(s, matrix, &b, &at, &m, w);
        b.count = 0;
    }
    if (b.count) error += write_block(s, matrix, &b, &at, &m, w);
    if (rounds) error += error_unsent(s, matrix, at.price, again, &m);
    plan->variance = ATOMO_MAX(0, ldexp(error, -2 * s->exponent));
    return ATOMO_OK;
}

bool svd_rotated_open(const svd_state *s, atomo__reader *r, const atomo__context *c, svd_place *at)
{
    const double T = svd_rounds_all(s->l) ? 0 : atomo__price_of_half(atomo__get(r, SVD_PRICE_BITS));
    *at = place_of(c, T);
    return !r->bad && T >= 0 && isfinite(T);
}

static bool read_rounded(const svd_state *s, atomo__reader *r, float *shorts, float *longs)
{
    const int bits = (int)atomo__get(r, SVD_WIDTH_BITS);
    const float coefficient = atomo__get_f32(r);
    return bits >= SVD_FEWEST_BITS && bits <= SVD_MOST_BITS && read_codes(r, shorts, s->k, bits, coefficient) &&
           read_codes(r, longs, s->l, bits, 1);
}

bool svd_rotated_read(const svd_state *s, atomo__reader *r, svd_place *at, const svd_scratch *m, float *shorts,
                      float *longs)
{
    if (svd_rounds_all(s->l)) return read_rounded(s, r, shorts, longs);
    const uint32_t code = atomo__get_exp_golomb(r, at->number ? LEVEL_ORDER : FIRST_ORDER);
    if (r->bad || code > 4 * SVD_MOST_LEVEL + 1) return false;
    at->level += atomo__unzigzag(code);
    if (at->level < -SVD_MOST_LEVEL || at->level > SVD_MOST_LEVEL) return false;
    const double square = svd_square_of(at->level);
    double keep;
    const svd_rate *a = svd_rate_of(&s->rates, square, at->price, &keep);
    return read_factor(r, shorts, s->k, &a->shorter, 1 / (double)s->k, 1, at, m) &&
           read_factor(r, longs, s->l, &a->longer, square / (double)s->l, keep, at, m) && !r->bad;
}
