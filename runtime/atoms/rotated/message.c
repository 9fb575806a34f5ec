/* message.c - a tensor's rotated atoms as a message: the map of its energies, then the units of its classes; stages 5,
 * 6 and 8 of the path.
 *
 * A message begins with its form: empty, coded, or all coefficients as floats. A coded one continues with T as the
 * upper half of a float without its sign, and the map: how classes are pooled, its kind, an octave, the slopes or
 * depths of the taps, the rises of the rows. Then the units follow, from the class of the highest energy down: a bit
 * that says whether the unit was sent, if that was drawn, and what common/rotated_unit.c writes. Both sides compute the
 * classes, their quantisers and their probabilities from the map and T.
 */
#include "atoms/rotated/state.h"
#include "core/carve.h"
#include <float.h>
#include <math.h>

/* Fields of the map: bits of T, the pool and the kind; Exp-Golomb order of the octave's difference from what it is
 * below T^2 in the mean; that of the depths, and bits of the order of the rises. */
enum { PRICE_BITS = 15, POOL_BITS = 2, KIND_BITS = 2, OCTAVE_ORDER = 3, BELOW_PRICE = 5, TAP_ORDER = 1 };
enum { ROW_ORDER_BITS = 2 };
enum { EMPTY, CODED, FLOATS, FORM_BITS = 2 }; /* forms of a message */
enum { PAD = 2 };                             /* floats that a transform may use beyond n */
/* The octaves of an entry's mean square: ||g||^2 is at most 2^224 (rotated.c), octaves are rounded, and the square of
 * the smallest float, over rows of the largest rise, is above 2^-600. */
enum { LEAST_OCTAVE = -600, MOST_OCTAVE = 225 };

/* ---- the map ---- */

/* Returns the octave that T lets expect. */
static int usual_octave(double T)
{
    int e;
    frexp(T, &e);
    return 2 * e - BELOW_PRICE;
}

int rotated_octave_bits(int octave, double T)
{
    return atomo__exp_golomb_bits(atomo__zigzag(octave - usual_octave(T)), OCTAVE_ORDER);
}

/* A depth and a rise as unsigned numbers; 0 stands for a tap or row without energy. */
static uint32_t code_of_depth(int8_t depth)
{
    return depth == ROTATED_DEAD ? 0 : (uint32_t)depth + 1;
}

static uint32_t code_of_rise(int8_t rise)
{
    return rise == ROTATED_DEAD ? 0 : atomo__zigzag(rise) + 1;
}

int rotated_tap_bits(int8_t depth)
{
    return atomo__exp_golomb_bits(code_of_depth(depth), TAP_ORDER);
}

double rotated_row_bits(const int64_t *histogram, int *order)
{
    double least = INFINITY;
    for (int k = 0; k < 1 << ROW_ORDER_BITS; k++) {
        double bits = ROW_ORDER_BITS;
        for (int i = 0; i < 256; i++)
            bits += (double)histogram[i] * atomo__exp_golomb_bits(code_of_rise((int8_t)(i - 128)), k);
        if (bits >= least) continue;
        least = bits;
        *order = k;
    }
    return least;
}

static void put_map(const rotated_state *s, uint32_t half, atomo__writer *w)
{
    const rotated_map *m = &s->map;
    atomo__put(w, half, PRICE_BITS);
    atomo__put(w, (uint32_t)m->pool, POOL_BITS);
    atomo__put(w, m->kind, KIND_BITS);
    const int usual = usual_octave(atomo__price_of_half(half));
    atomo__put_exp_golomb(w, atomo__zigzag(m->octave - usual), OCTAVE_ORDER);
    if (m->kind == ROTATED_LAW) {
        for (int i = 0; i < 2 && s->shape.taps > 1; i++) atomo__put(w, m->slope[i], ROTATED_SLOPE_BITS);
        return;
    }
    for (int64_t t = 0; t < s->shape.taps; t++) atomo__put_exp_golomb(w, code_of_depth(m->depth[t]), TAP_ORDER);
    if (m->kind == ROTATED_TAP_MAP) return;
    atomo__put(w, (uint32_t)s->row_order, ROW_ORDER_BITS);
    for (int64_t r = 0; r < s->shape.rows; r++) atomo__put_exp_golomb(w, code_of_rise(m->rise[r]), s->row_order);
}

static bool get_map(const rotated_shape *h, atomo__reader *r, uint32_t *half, rotated_map *m)
{
    *half = atomo__get(r, PRICE_BITS);
    m->pool = (int)atomo__get(r, POOL_BITS);
    m->kind = (rotated_kind)atomo__get(r, KIND_BITS);
    if (m->kind >= ROTATED_KINDS || !isfinite(atomo__price_of_half(*half))) return false;
    m->octave = usual_octave(atomo__price_of_half(*half)) + atomo__unzigzag(atomo__get_exp_golomb(r, OCTAVE_ORDER));
    if (m->octave < LEAST_OCTAVE || m->octave > MOST_OCTAVE) return false;
    if (m->kind == ROTATED_LAW) {
        for (int i = 0; i < 2; i++) m->slope[i] = (uint8_t)(h->taps > 1 ? atomo__get(r, ROTATED_SLOPE_BITS) : 0);
        rotated_law(h, m);
        return !r->bad;
    }
    for (int64_t t = 0; t < h->taps && !r->bad; t++) {
        const uint32_t v = atomo__get_exp_golomb(r, TAP_ORDER);
        r->bad |= v > INT8_MAX + 1;
        m->depth[t] = (int8_t)(v == 0 ? ROTATED_DEAD : (int)v - 1);
    }
    if (m->kind == ROTATED_TAP_MAP) return !r->bad;
    const int order = (int)atomo__get(r, ROW_ORDER_BITS);
    for (int64_t i = 0; i < h->rows && !r->bad; i++) {
        const uint32_t v = atomo__get_exp_golomb(r, order);
        r->bad |= v > 2 * INT8_MAX + 1;
        m->rise[i] = (int8_t)(v == 0 ? ROTATED_DEAD : atomo__unzigzag(v - 1));
    }
    return !r->bad;
}

/* ---- the coefficients, unit by unit ---- */

size_t rotated_scratch(const rotated_shape *s, void *block, rotated_room *m)
{
    const size_t n = (size_t)s->n, unit = (size_t)atomo__rotation_size(ATOMO_MIN(s->n, (int64_t)ATOMO__MOST_ROTATED));
    atomo__carver c = {.block = block};
    m->x = atomo__carve(&c, n + PAD, sizeof(float));
    m->row = atomo__carve(&c, (size_t)(s->taps * s->width) + PAD, sizeof(float));
    m->unit = atomo__carve(&c, unit, sizeof(float));
    m->index = atomo__carve(&c, unit + 16, sizeof(uint32_t));
    m->depth = atomo__carve(&c, (size_t)s->taps, 1);
    m->rise = atomo__carve(&c, (size_t)s->rows, 1);
    m->mean = atomo__carve(&c, (size_t)s->taps, sizeof(double));
    return c.size;
}

/* Iterates over the entries of one class, in the order of the cells. */
typedef struct {
    const rotated_shape *shape;
    const rotated_map *map;
    const rotated_classes *classes;
    int class;
    int64_t row, tap, used; /* the next cell, and the number of its entries that were passed */
} cells;

static void next_cell(cells *k)
{
    k->used = 0;
    if (++k->tap < k->shape->taps) return;
    k->tap = 0;
    k->row++;
}

/* Returns the length of the next run of neighbouring entries, at most `most`; *at = its place in the coefficients. The
 * class must have an entry left. */
static int64_t next_run(cells *k, int64_t most, int64_t *at)
{
    for (int depth; depth = rotated_depth(k->map, k->row, k->tap), depth < 0 || k->classes->of[depth] != k->class;)
        next_cell(k);
    const int64_t left = rotated_cell(k->shape, k->row) - k->used, count = ATOMO_MIN(left, most);
    *at = (k->row * k->shape->taps + k->tap) * k->shape->width + k->used;
    k->used += count;
    if (count == left) next_cell(k);
    return count;
}

/* unit [count] = the next entries. */
static void gather(cells *k, const float *x, float *unit, int64_t count)
{
    for (int64_t n, at; count > 0; count -= n, unit += n) {
        n = next_run(k, count, &at);
        memcpy(unit, x + at, sizeof(float) * (size_t)n);
    }
}

/* The next entries of x are unit [count], or 0 if unit is NULL: set if fresh, else added. */
static void scatter(cells *k, const float *unit, int64_t count, bool fresh, float *x)
{
    for (int64_t n, at, done = 0; done < count; done += n) {
        n = next_run(k, count - done, &at);
        if (unit && fresh)
            memcpy(x + at, unit + done, sizeof(float) * (size_t)n);
        else if (unit)
            atomo__add_scaled(unit + done, n, 1, x + at);
        else if (fresh)
            memset(x + at, 0, sizeof(float) * (size_t)n);
    }
}

/* The entries of cells that are not sent = 0. */
static void clear_unsent(const rotated_shape *h, const rotated_map *m, float *x)
{
    for (int64_t r = 0; r < h->rows; r++)
        for (int64_t t = 0; t < h->taps; t++)
            if (rotated_depth(m, r, t) < 0)
                memset(x + (r * h->taps + t) * h->width, 0, sizeof(float) * (size_t)rotated_cell(h, r));
}

/* Iterates over the units of all classes. */
typedef struct {
    double T;
    cells cells;                /* class: that the unit is of; -1 at the start */
    atomo__rotation_units line; /* the entries of all classes, one class after the other */
    atomo__unit unit;
} units;

static bool next_unit(units *u)
{
    const rotated_classes *c = u->cells.classes;
    atomo__unit *v = &u->unit;
    while (!atomo__rotation_next(&u->line)) {
        if (++u->cells.class == c->sizes.count) return false;
        u->line.left = c->entries[u->cells.class];
        u->cells.row = u->cells.tap = u->cells.used = 0;
    }
    v->block = u->line.block;
    v->number = u->line.number;
    v->size = u->line.size;
    v->e = c->sizes.e[u->cells.class] * (double)u->line.count / (double)v->size;
    v->rate = atomo__rate_at(v->size, v->e, u->T);
    return true;
}

static units units_of(const rotated_shape *h, const rotated_map *map, const rotated_classes *classes, double T,
                      const atomo__context *context, const rotated_room *m)
{
    units u = {.T = T,
               .cells = {.shape = h, .map = map, .classes = classes, .class = -1},
               .unit = {.stream = context->stream, .index = m->index}};
    u.unit.stream.purpose = ATOMO_RNG_ROTATE;
    return u;
}

ATOMO_CLONES static double squares(const float *x, int64_t n)
{
    enum { LANES = 16 };
    double sum[LANES] = {0};
    const int64_t whole = n / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) sum[l] += (double)x[i + l] * (double)x[i + l];
    for (int64_t i = whole; i < n; i++) sum[i - whole] += (double)x[i] * (double)x[i];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}

double rotated_squares(const float *x, int64_t n)
{
    return squares(x, n);
}

int rotated_encode(atomo__plan *plan, const float *x, atomo__context *c, atomo__writer *w)
{
    const rotated_state *s = atomo__rotated_state(plan);
    rotated_room m;
    rotated_scratch(&s->shape, c->scratch, &m);
    const uint32_t half = atomo__half_of_price(plan->T);
    units u = units_of(&s->shape, &s->map, &s->classes, atomo__price_of_half(half), c, &m);
    atomo__draw draw = atomo__draw_of(&c->stream, c->fixed_few);
    plan->expected = plan->sent = plan->variance = 0;
    const bool any = s->classes.sizes.count > 0;
    if (!any) {
        atomo__put(w, EMPTY, FORM_BITS);
        return ATOMO_OK;
    }
    if (!(plan->T > 0)) {
        atomo__put(w, FLOATS, FORM_BITS);
        for (int64_t i = 0; i < plan->n; i++) atomo__put_f32(w, x[i]);
        plan->expected = plan->sent = (double)plan->n;
        return ATOMO_OK;
    }
    const atomo__writer empty = *w;
    int units_sent = 0;
    atomo__put(w, CODED, FORM_BITS);
    put_map(s, half, w);
    while (next_unit(&u)) {
        const atomo__unit *v = &u.unit;
        const int64_t count = u.line.count;
        gather(&u.cells, x, m.unit, count);
        const double energy = squares(m.unit, count);
        plan->expected += v->rate.nonzero;
        if (v->rate.keep < 1) {
            const bool there = atomo__draw_next(&draw, v->number, v->rate.keep);
            atomo__put(w, there, 1);
            if (!there) {
                plan->variance += v->rate.loss * energy;
                continue;
            }
        }
        units_sent++;
        if (energy == 0) {
            atomo__unit_write_zeros(w);
            continue;
        }
        memset(m.unit + count, 0, sizeof(float) * (size_t)(v->size - count));
        double sent;
        double loss = atomo__unit_write(v, m.unit, energy, w, &sent);
        if (v->size > 1) loss *= (double)(count - 1) / (double)(v->size - 1); /* without the error in the padding */
        plan->sent += sent;
        plan->variance += ((1 + loss) / v->rate.keep - 1) * energy;
    }
    if (units_sent == 0) {
        *w = empty;
        atomo__put(w, EMPTY, FORM_BITS);
    }
    return ATOMO_OK;
}

static int read_floats(int64_t n, atomo__reader *r, float scale, float *x)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = atomo__get_f32(r);
        if (r->bad || !isfinite(v)) return ATOMO_EFORMAT;
        x[i] += scale * v;
    }
    return ATOMO_OK;
}

int rotated_read(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *x, bool fresh)
{
    const rotated_state *s = atomo__rotated_state(plan);
    rotated_room m;
    rotated_scratch(&s->shape, c->scratch, &m);
    rotated_map map = {.depth = m.depth, .rise = m.rise};
    rotated_classes classes;
    uint32_t half;
    const uint32_t form = atomo__get(r, FORM_BITS);
    if (fresh && form != CODED) memset(x, 0, sizeof(float) * (size_t)plan->n);
    if (form == EMPTY) return r->bad ? ATOMO_EFORMAT : ATOMO_OK;
    if (form == FLOATS) return read_floats(plan->n, r, scale, x);
    if (form != CODED || !get_map(&s->shape, r, &half, &map)) return ATOMO_EFORMAT;
    rotated_pool(&s->shape, &map, (int)plan->option[ROTATED_CLASSES], &classes);
    const double T = atomo__price_of_half(half);
    if (!(T >= 0 && isfinite(T)) || classes.sizes.count == 0) return ATOMO_EFORMAT;
    units u = units_of(&s->shape, &map, &classes, T, c, &m);
    if (fresh) clear_unsent(&s->shape, &map, x);
    while (next_unit(&u)) {
        const atomo__unit *v = &u.unit;
        const bool sent = v->rate.keep >= 1 || atomo__get(r, 1);
        if (sent && !atomo__unit_read(v, r, (double)scale, m.unit)) return ATOMO_EFORMAT;
        scatter(&u.cells, sent ? m.unit : NULL, u.line.count, fresh, x);
    }
    return r->bad ? ATOMO_EFORMAT : ATOMO_OK;
}
