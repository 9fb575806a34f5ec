/* rotated_unit.c - quantises, scales and writes one unit of rotated entries, and reads it; stages 5, 6 and 8 of the
 * path.
 *
 * y [size] is rotated (common/rotation.c) and divided by its root mean square, so that its entries are nearly standard
 * normal; q = Q(y) is quantised by the quantiser that both sides know (sampling/gaussian.c). The scale S = sigma size /
 * <y, q> gives <g, ghat> = ||g||^2 in every draw. Divided by the probability that the unit is sent, it is written as
 * its exponent, relative to the expected one, and a few bits of mantissa, rounded stochastically. The squared error of
 * a draw is (||q||^2 size / <y, q>^2 - 1) ||g||^2, so the stated variance is computed from the draw itself. After the
 * scale a unit has picks (picked.c), signs (passed.c), or levels (rans.c) and places within their cells. If no entry
 * passes the threshold, the largest one is sent.
 */
#include "atoms/common/passed.h"
#include "atoms/common/picked.h"
#include "atoms/common/rotated_unit.h"
#include "coding/rans.h"
#include <float.h>
#include <math.h>

/* The order of the Exp-Golomb code of the exponent's difference from the expected one, and the code of a unit of zeros.
 */
enum { EXPONENT_ORDER = 1, ZEROS = 4095 };

/* ---- price ---- */

uint32_t atomo__half_of_price(double T)
{
    const float f = T < (double)FLT_MAX / 2 ? (float)T : FLT_MAX / 2;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    const uint32_t half = (bits + 0x8000) >> 16;
    return half == 0 && T > 0 ? 1 : half; /* a price of 0 would exceed the budget */
}

double atomo__price_of_half(uint32_t half)
{
    const uint32_t bits = half << 16;
    float f;
    memcpy(&f, &bits, 4);
    return (double)f;
}

/* ---- scale ---- */

static int expected_exponent(const atomo__unit *u)
{
    int e;
    frexp(sqrt(u->e) * atomo__quantiser_at(u->rate.quantiser)->gain / u->rate.keep, &e);
    return e;
}

/* Writes the scale S > 0, rounded stochastically, with mean S. */
static void put_scale(const atomo__unit *u, double S, atomo__writer *w)
{
    const int bits = atomo__quantiser_at(u->rate.quantiser)->scale_bits;
    int e;
    uint32_t word[4];
    atomo_stream stream = u->stream;
    stream.purpose = ATOMO_RNG_QUANT;
    atomo_random_block(&stream, u->number, word);
    const double at = ldexp(frexp(S, &e) - 0.5, bits + 1), down = floor(at);
    uint32_t m = (uint32_t)down + ((double)word[0] * 0x1p-32 < at - down);
    if (m >> bits) {
        m = 0;
        e++;
    }
    atomo__put_exp_golomb(w, atomo__zigzag(e - expected_exponent(u)), EXPONENT_ORDER);
    atomo__put(w, m, bits);
}

void atomo__unit_write_zeros(atomo__writer *w)
{
    atomo__put_exp_golomb(w, ZEROS, EXPONENT_ORDER);
}

/* Returns the scale, 0 for a unit of zeros; sets r->bad for one that put_scale cannot have written. */
static double get_scale(const atomo__unit *u, atomo__reader *r)
{
    const int bits = atomo__quantiser_at(u->rate.quantiser)->scale_bits;
    const uint32_t exponent = atomo__get_exp_golomb(r, EXPONENT_ORDER);
    if (exponent == ZEROS) return 0;
    const uint32_t m = atomo__get(r, bits);
    const double S = ldexp(0.5 + ldexp((double)m, -bits - 1), expected_exponent(u) + atomo__unzigzag(exponent));
    if (exponent > ZEROS || !(S < (double)FLT_MAX)) r->bad = true;
    return S;
}

/* ---- levels ---- */

typedef struct {
    uint8_t *symbol, *place; /* [size] each */
    uint16_t *work;          /* [size + 8] */
} rooms;

static rooms rooms_of(const atomo__unit *u)
{
    uint8_t *at = (uint8_t *)u->index; /* [size + 8] words */
    return (rooms){at, at + u->size, (uint16_t *)(void *)(at + 2 * (u->size + (u->size & 1)))};
}

/* symbol[i] = the number of y_i's level in the quantiser's table: 0, or 2 j - 1 for level j > 0, 2 j for -j. */
ATOMO_CLONES static void find_levels(const float *restrict y, int64_t n, float threshold, float inverse, int most,
                                     uint8_t *restrict symbol)
{
    for (int64_t i = 0; i < n; i++) {
        const float a = fabsf(y[i]);
        int32_t level = (int32_t)((a - threshold) * inverse) + 1;
        level = level > most ? most : level;
        level = a < threshold ? 0 : 2 * level - (y[i] > 0);
        symbol[i] = (uint8_t)level;
    }
}

/* Returns the end of a symbol's cell that is nearer to 0, as a magnitude; for the cell around 0, its lower end. */
static float cell_of(const atomo__quantiser *q, uint8_t symbol)
{
    return symbol == 0 ? -(float)q->threshold : (float)(q->threshold + (symbol - 1) / 2 * ldexp(q->width, q->fine));
}

/* Returns the quantised value of a symbol and a place in its cell. */
static float value_of(const atomo__quantiser *q, uint8_t symbol, uint8_t place)
{
    if (q->fine == 0) return q->levels->value[symbol];
    const float a = cell_of(q, symbol) + ((float)place + 0.5f) * (float)q->width;
    return symbol > 0 && symbol % 2 == 0 ? -a : a;
}

/* m->place = the part of its cell in which each entry lies, of 2^fine parts. */
static void find_places(const atomo__quantiser *q, const float *y, int64_t n, const rooms *m)
{
    const float inverse = (float)(1 / q->width), most = (float)((1 << q->fine) - 1);
    for (int64_t i = 0; i < n; i++) {
        const float a = m->symbol[i] == 0 ? y[i] : fabsf(y[i]);
        const float at = (a - cell_of(q, m->symbol[i])) * inverse;
        m->place[i] = (uint8_t)ATOMO_MAX(0, ATOMO_MIN(at, most));
    }
}

/* *along = the sum of y_i q_i, *square = the sum of q_i^2, of the quantised values q. */
static void measure_levels(const atomo__quantiser *q, const float *y, int64_t n, const rooms *m, double *along,
                           double *square)
{
    double a[4] = {0}, s[4] = {0};
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)value_of(q, m->symbol[i], q->fine ? m->place[i] : 0);
        a[i & 3] += v * (double)y[i];
        s[i & 3] += v * v;
    }
    *along = a[0] + a[1] + (a[2] + a[3]);
    *square = s[0] + s[1] + (s[2] + s[3]);
}

static void put_levels(const atomo__unit *u, const atomo__quantiser *q, const rooms *m, atomo__writer *w)
{
    atomo__rans_write(w, q->levels->share, q->levels->count, m->symbol, u->size, m->work);
    for (int64_t i = 0; q->fine && i < u->size; i++) atomo__put(w, m->place[i], q->fine);
}

static bool get_levels(const atomo__unit *u, const atomo__quantiser *q, atomo__reader *r, float *y)
{
    const rooms m = rooms_of(u);
    if (!atomo__rans_read(r, q->levels->share, q->levels->count, u->size, m.symbol)) return false;
    for (int64_t i = 0; i < u->size; i++)
        y[i] = value_of(q, m.symbol[i], (uint8_t)(q->fine ? atomo__get(r, q->fine) : 0));
    return !r->bad;
}

/* ---- units ---- */

/* Returns the index of the entry of largest magnitude. */
static int64_t largest(const float *y, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
        if (fabsf(y[i]) > fabsf(y[at])) at = i;
    return at;
}

double atomo__unit_write(const atomo__unit *u, float *y, double energy, atomo__writer *w, double *sent)
{
    const atomo__quantiser *q = atomo__quantiser_at(u->rate.quantiser);
    const double n = (double)u->size, sigma = sqrt(energy / n);
    const rooms room = rooms_of(u);
    double along = 0, square = 0;
    int64_t m = 0;
    atomo__rotate(y, u->size, &u->stream, u->block, 1 / sigma, (float *)(void *)u->index);
    if (q->levels) {
        find_levels(y, u->size, (float)q->threshold, (float)ldexp(1 / q->width, -q->fine), (q->levels->count - 1) / 2,
                    room.symbol);
        if (q->fine) find_places(q, y, u->size, &room);
        measure_levels(q, y, u->size, &room, &along, &square);
        if (!(along > 0)) { /* no entry passed the threshold */
            const int64_t i = largest(y, u->size);
            room.symbol[i] = y[i] > 0 ? 1 : 2;
            measure_levels(q, y, u->size, &room, &along, &square);
        }
        for (int64_t i = 0; i < u->size; i++) m += room.symbol[i] != 0;
    } else {
        if (q->picks) {
            m = atomo__picks_of(u->size, q->nonzero);
            along = atomo__pick(y, u->size, m, u->index);
        } else {
            m = atomo__pass(y, u->size, (float)q->threshold, u->index);
            if (m == 0) {
                const int64_t i = largest(y, u->size);
                u->index[m++] = (uint32_t)i | (y[i] < 0 ? ATOMO__MINUS : 0);
            }
            for (int64_t i = 0; i < m; i++) along += (double)fabsf(y[u->index[i] & ~ATOMO__MINUS]);
        }
        square = (double)m;
    }
    put_scale(u, sigma * n / along / u->rate.keep, w);
    if (q->levels)
        put_levels(u, q, &room, w);
    else if (q->picks)
        atomo__write_picks(w, u->size, m, u->index);
    else
        atomo__write_passed(w, u->size, q->nonzero, m, u->index);
    *sent = (double)m;
    return ATOMO_MAX(0, square * n / (along * along) - 1);
}

bool atomo__unit_read(const atomo__unit *u, atomo__reader *r, double scale, float *y)
{
    const atomo__quantiser *q = atomo__quantiser_at(u->rate.quantiser);
    const double S = get_scale(u, r);
    if (r->bad) return false;
    if (S == 0) {
        memset(y, 0, sizeof(float) * (size_t)u->size);
        return true;
    }
    float *work = (float *)(void *)u->index;
    if (q->levels) {
        if (!get_levels(u, q, r, y)) return false;
        atomo__rotate_back(y, u->size, &u->stream, u->block, S * scale, work);
        return true;
    }
    int64_t m = atomo__picks_of(u->size, q->nonzero);
    if (!q->picks)
        m = atomo__read_passed(r, u->size, q->nonzero, u->index);
    else if (!atomo__read_picks(r, u->size, m, u->index))
        return false;
    if (m < 1) return false;
    atomo__rotate_back_signs(u->index, m, y, u->size, &u->stream, u->block, S * scale, work);
    return true;
}
