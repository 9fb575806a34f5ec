/* message.c - bodies of spectral atoms: the number of atoms, an exponent, and for each drawn atom its coefficient and
 * both factors in few bits; stages 5, 6 and 8 of the path. */
#include "atoms/svd/state.h"
#include <float.h>
#include <math.h>

/* The largest exponent accepted when decoding. An encoder's exponents are those of floats, from 2^-149 to 2^128. */
enum { MOST_EXPONENT = 150 };

/* Returns the keep-probability of atom i at the plan's T. */
static double probability(const atomo__plan *plan, int64_t i)
{
    const double lambda = plan->segment.f64[i], t = plan->T * sqrt(plan->segment.unit);
    return lambda <= 0 ? 0 : lambda >= t ? 1 : lambda / t;
}

/* A block of drawn atoms whose short factors are in m->shorts. */
typedef struct {
    double p[SVD_BLOCK];
    int count;
    uint32_t first; /* number of atoms written before */
} block;

/* Writes a block. If lambda are estimates, returns the variance of rounding of the atoms with p = 1, else 0. */
static double write_block(const atomo__plan *plan, const float *matrix, const svd_scratch *m, const block *drawn,
                          const atomo__context *c, atomo__writer *w)
{
    const svd_state *s = plan->state;
    atomo_stream short_stream = c->stream, long_stream = c->stream;
    short_stream.purpose = ATOMO_RNG_QUANT_U;
    long_stream.purpose = ATOMO_RNG_QUANT_V;
    double rounding = 0;
    atomo__svd_project(s, matrix, m->shorts, drawn->count, m->longs);
    for (int j = 0; j < drawn->count; j++) {
        const float *shorts = m->shorts + j * s->k, *longs = m->longs + j * s->l;
        const int bits = s->bits;
        const uint32_t number = drawn->first + (uint32_t)j;
        float short_scale = atomo__quant_scale(shorts, s->k, bits), long_scale = atomo__quant_scale(longs, s->l, bits);
        atomo__put_f32(w, (float)ATOMO_MIN((double)short_scale * (double)long_scale / drawn->p[j], (double)FLT_MAX));
        atomo__quant_write(w, shorts, s->k, bits, short_scale, &short_stream, number, m->uniforms);
        atomo__quant_write(w, longs, s->l, bits, long_scale, &long_stream, number, m->uniforms);
        if (!s->rough || drawn->p[j] < 1) continue;
        double square, unit, ev, ew;
        atomo__quant_variance(longs, s->l, bits, &square, &ev);
        atomo__quant_variance(shorts, s->k, bits, &unit, &ew);
        rounding += ldexp((square + ev) * (unit + ew) - square * unit, -2 * s->exponent);
    }
    return rounding;
}

int atomo__svd_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const svd_state *s = plan->state;
    if (svd_rotates(s)) return svd_rotated_encode(plan, g, c, w);
    const svd_scratch m = atomo__svd_scratch_of(s, c);
    /* the square of the factor by which rounding increases an estimated lambda */
    const double share =
        (1 + atomo__svd_usual_rounding(s->l, s->bits)) * (1 + atomo__svd_usual_rounding(s->k, s->bits));
    atomo__draw draw = atomo__draw_of(&c->stream, c->fixed_few), again = draw;
    double noisy = 0, sent = 0;
    for (int64_t i = 0; i < s->k; i++) {
        const double pi = probability(plan, i), square = s->lambda[i] * s->lambda[i];
        if (pi > 0 && !(s->rough && pi >= 1)) noisy += square / pi - (s->rough ? square / share : 0);
        sent += pi > 0 && atomo__draw_next(&draw, (uint32_t)i, pi);
    }
    plan->expected = plan->segment.expected;
    plan->sent = sent;
    atomo__put_varint(w, (uint32_t)sent);
    atomo__put(w, (uint32_t)(s->exponent + SVD_EXPONENT_BIAS), SVD_EXPONENT_BITS);
    const float *matrix = sent > 0 ? atomo__svd_matrix(s, g, &m) : NULL;
    block drawn = {.count = 0};
    for (int64_t i = 0; i < s->k; i++) {
        const double pi = probability(plan, i);
        if (!(pi > 0 && atomo__draw_next(&again, (uint32_t)i, pi))) continue;
        memcpy(m.shorts + drawn.count * s->k, s->basis + i * s->k, sizeof(float) * (size_t)s->k);
        drawn.p[drawn.count++] = pi;
        if (drawn.count == SVD_BLOCK) {
            noisy += write_block(plan, matrix, &m, &drawn, c, w);
            drawn.first += SVD_BLOCK;
            drawn.count = 0;
        }
    }
    if (drawn.count) noisy += write_block(plan, matrix, &m, &drawn, c, w);
    plan->variance = ATOMO_MAX(0, noisy - (s->rough ? 0 : plan->square));
    return ATOMO_OK;
}

static bool read_rounded(const svd_state *s, atomo__reader *r, float *coefficient, float *shorts, float *longs)
{
    *coefficient = atomo__get_f32(r);
    atomo__quant_read(r, shorts, s->k, s->bits);
    atomo__quant_read(r, longs, s->l, s->bits);
    return !r->bad && isfinite(*coefficient);
}

int atomo__svd_decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const svd_state *s = plan->state;
    const svd_scratch m = atomo__svd_scratch_of(s, c);
    uint32_t atoms = atomo__get_varint(r);
    int exponent = SVD_EXPONENT_BIAS - (int)atomo__get(r, SVD_EXPONENT_BITS);
    if (r->bad || atoms > (uint64_t)s->k || exponent < -MOST_EXPONENT || exponent > MOST_EXPONENT) return ATOMO_EFORMAT;
    svd_place at;
    if (svd_rotates(s) && !svd_rotated_open(s, r, c, &at)) return ATOMO_EFORMAT;
    const float long_scale = ldexpf(1, exponent / 2), short_scale = ldexpf(scale, exponent - exponent / 2);
    float *rows = s->tall ? m.longs : m.shorts, *cols = s->tall ? m.shorts : m.longs;
    for (uint32_t first = 0; first < atoms; first += SVD_BLOCK) {
        int count = (int)ATOMO_MIN((uint32_t)SVD_BLOCK, atoms - first);
        for (int j = 0; j < count; j++) {
            float coefficient = 1, *shorts = m.shorts + j * s->k, *longs = m.longs + j * s->l;
            const bool good = svd_rotates(s) ? svd_rotated_read(s, r, &at, &m, shorts, longs)
                                             : read_rounded(s, r, &coefficient, shorts, longs);
            if (!good) return ATOMO_EFORMAT;
            for (int64_t i = 0; i < s->k; i++) shorts[i] *= coefficient * short_scale;
            for (int64_t i = 0; exponent != 0 && i < s->l; i++) longs[i] *= long_scale;
        }
        atomo__fold_rank_add(&s->fold, rows, cols, count, acc, m.uniforms);
    }
    return ATOMO_OK;
}
