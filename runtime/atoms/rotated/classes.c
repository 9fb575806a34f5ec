/* classes.c - groups the entries of a tensor by energy: from the energies of cells to a map of octaves, and from a map
 * to classes; stages 4 and 5 of the path.
 *
 * Reverse water-filling needs entries of one variance together. The energy of cell (r, t), of row r and tap t, is
 * modelled as the product of a power of two for the tap and one for the row. Such a map takes a few bits per tap, or
 * for all of them if they follow a law, and, if it pays, one or two per row. Entries of the same octave form a class;
 * octaves of too few entries are pooled with the next lower ones. The message is unbiased with any map; a bad one only
 * has more variance.
 */
#include "atoms/rotated/state.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

/* The least number of entries of a class with pool 0; each further pool multiplies it by 2^POOL_OCTAVES. */
enum { LEAST_CLASS = 128, POOL_OCTAVES = 3 };

/* Returns the k for which 2^k is nearest to x > 0, in ratio. */
static int octave_of(double x)
{
    int e;
    return frexp(x, &e) > sqrt(0.5) ? e : e - 1;
}

/* Sets the map's octave and depths from mean [taps], which it sets to the taps' mean squares over the rows (each
 * divided by its row's power of two, if the map has rises). Returns the bits of the depths. */
static double fit_taps(const rotated_state *s, rotated_map *m, double *mean)
{
    const rotated_shape *h = &s->shape;
    const bool by_rows = m->kind == ROTATED_ROW_MAP;
    double most = 0, bits = 0;
    for (int64_t t = 0; t < h->taps; t++) {
        double sum = 0, entries = 0;
        for (int64_t r = 0; r < h->rows; r++) {
            if (by_rows && m->rise[r] == ROTATED_DEAD) continue;
            sum += ldexp(s->energy[r * h->taps + t], by_rows ? -m->rise[r] : 0);
            entries += (double)rotated_cell(h, r);
        }
        mean[t] = entries > 0 ? sum / entries : 0;
        most = ATOMO_MAX(most, mean[t]);
    }
    m->octave = most > 0 ? octave_of(most) : 0;
    for (int64_t t = 0; t < h->taps; t++) {
        const int below = mean[t] > 0 ? m->octave - octave_of(mean[t]) : 0;
        m->depth[t] = (int8_t)(mean[t] > 0 ? ATOMO_MIN(below, INT8_MAX) : ROTATED_DEAD);
        bits += rotated_tap_bits(m->depth[t]);
    }
    return bits;
}

/* Returns the bits of the rises, which it sets; mean [taps]: the taps' mean squares. */
static double fit_rows(rotated_state *s, rotated_map *m, const double *mean)
{
    const rotated_shape *h = &s->shape;
    int64_t histogram[256] = {0};
    for (int64_t r = 0; r < h->rows; r++) {
        double sum = 0, taps = 0;
        for (int64_t t = 0; t < h->taps; t++) {
            if (mean[t] <= 0) continue;
            sum += s->energy[r * h->taps + t] / mean[t];
            taps += (double)rotated_cell(h, r);
        }
        const int rise = sum > 0 ? octave_of(sum / taps) : 0;
        m->rise[r] = (int8_t)(sum > 0 ? ATOMO_MAX(-INT8_MAX, ATOMO_MIN(rise, INT8_MAX)) : ROTATED_DEAD);
        histogram[m->rise[r] + 128]++;
    }
    return rotated_row_bits(histogram, &s->row_order);
}

/* Returns log2(1 + tap) in quarters, rounded down: a spectrum that falls as a power of the frequency falls by a
 * multiple of it. Exact for taps below 2^15. */
static int quarters(int64_t tap)
{
    const uint64_t x = (uint64_t)(1 + tap);
    return 63 - __builtin_clzll(x * x * x * x);
}

/* The depth of tap (i, j): the steeper axis, and half of the other; between the sum, of energies that fall along both
 * axes independently, and their Euclidean norm, of energies that depend on the frequency's magnitude alone. */
static int law_depth(const uint8_t *slope, int64_t i, int64_t j)
{
    const int a = slope[0] * quarters(i), b = slope[1] * quarters(j);
    return (ATOMO_MAX(a, b) + ATOMO_MIN(a, b) / 2 + 2) / 4;
}

void rotated_law(const rotated_shape *s, rotated_map *m)
{
    for (int64_t t = 0; t < s->taps; t++)
        m->depth[t] = (int8_t)ATOMO_MIN(law_depth(m->slope, t / s->across, t % s->across), INT8_MAX);
}

/* Fits the slopes of m to the depths of `taps`: the least sum of differences, of which those of high energy count more.
 * Returns their bits; infinitely many if all taps are dead, which slopes cannot say.
 */
static double fit_law(const rotated_shape *h, const rotated_map *taps, rotated_map *m)
{
    enum { SLOPES = 1 << ROTATED_SLOPE_BITS };
    bool dead = true;
    for (int64_t t = 0; t < h->taps; t++) dead &= taps->depth[t] == ROTATED_DEAD;
    if (dead) return INFINITY;
    double least = INFINITY;
    m->octave = taps->octave;
    for (int k = 0; k < SLOPES * SLOPES; k++) {
        const uint8_t slope[2] = {(uint8_t)(k / SLOPES), (uint8_t)(k % SLOPES)};
        double sum = 0;
        for (int64_t t = 0; t < h->taps; t++) {
            const int depth = taps->depth[t];
            if (depth != ROTATED_DEAD)
                sum += abs(law_depth(slope, t / h->across, t % h->across) - depth) / (1.0 + depth);
        }
        if (!(sum < least)) continue;
        least = sum;
        memcpy(m->slope, slope, sizeof slope);
    }
    rotated_law(h, m);
    return h->taps > 1 ? 2 * ROTATED_SLOPE_BITS : 0;
}

void rotated_fit(rotated_state *s, double *mean)
{
    rotated_map *m = s->best;
    s->bits[ROTATED_TAP_MAP] = fit_taps(s, &m[ROTATED_TAP_MAP], mean);
    s->bits[ROTATED_LAW] = fit_law(&s->shape, &m[ROTATED_TAP_MAP], &m[ROTATED_LAW]);
    const double row_bits = fit_rows(s, &m[ROTATED_ROW_MAP], mean);
    s->bits[ROTATED_ROW_MAP] = fit_taps(s, &m[ROTATED_ROW_MAP], mean) + row_bits;
}

/* Adds each octave's number of entries to `entries`, and, unless energy is NULL, its sum of squares to `square`. */
static void count_octaves(const rotated_shape *h, const rotated_map *m, const double *energy, int64_t *entries,
                          double *square)
{
    for (int64_t r = 0; r < h->rows; r++) {
        const int64_t cell = rotated_cell(h, r);
        for (int64_t t = 0; t < h->taps; t++) {
            const int d = rotated_depth(m, r, t);
            if (d < 0) continue;
            entries[d] += cell;
            if (energy) square[d] += energy[r * h->taps + t];
        }
    }
}

/* Forms classes of at least `least` entries from the highest octave down; the octaves that remain join the last class.
 * of[octave] = its class, -1 for an octave without entries. Returns the number of classes. */
static int pool(const int64_t *entries, int64_t least, int8_t *of)
{
    int64_t n = 0;
    int count = 0, last = -1;
    for (int d = 0; d < ROTATED_DEPTHS; d++) {
        of[d] = -1;
        if (entries[d] == 0) continue;
        of[d] = (int8_t)count;
        n += entries[d];
        if (n < least) continue;
        last = count++;
        n = 0;
    }
    for (int d = 0; n > 0 && last >= 0 && d < ROTATED_DEPTHS; d++)
        if (of[d] == count) of[d] = (int8_t)last;
    return n > 0 && last < 0 ? 1 : count;
}

static void make_classes(const rotated_map *m, const int64_t *entries, const double *square, int most,
                         rotated_classes *c)
{
    int64_t least = (int64_t)LEAST_CLASS << POOL_OCTAVES * m->pool;
    if (m->pool == ROTATED_POOLS - 1) least = INT64_MAX;
    while ((c->sizes.count = pool(entries, least, c->of)) > most) least *= 2;
    int64_t *n = c->entries;
    memset(n, 0, sizeof c->entries);
    memset(c->sizes.e, 0, sizeof c->sizes.e);
    memset(c->sizes.energy, 0, sizeof c->sizes.energy);
    for (int d = 0; d < ROTATED_DEPTHS; d++) {
        if (c->of[d] < 0) continue;
        n[c->of[d]] += entries[d];
        c->sizes.e[c->of[d]] += ldexp((double)entries[d], m->octave + ROTATED_HIGHEST - d);
        if (square) c->sizes.energy[c->of[d]] += square[d];
    }
    for (int i = 0; i < c->sizes.count; i++) {
        c->sizes.e[i] /= (double)n[i];
        c->sizes.units[i] = n[i] / ATOMO__MOST_ROTATED;
        c->sizes.size[i] = c->sizes.units[i] * ATOMO__MOST_ROTATED;
        for (atomo__rotation_units u = {.left = n[i] % ATOMO__MOST_ROTATED}; atomo__rotation_next(&u);) {
            c->sizes.size[i] += u.size;
            c->sizes.units[i]++;
        }
        c->sizes.size[i] /= c->sizes.units[i]; /* the mean: only the bits of each unit depend on it */
    }
    atomo__classes_ready(&c->sizes);
}

void rotated_pool(const rotated_shape *h, const rotated_map *m, int most, rotated_classes *c)
{
    int64_t entries[ROTATED_DEPTHS] = {0};
    count_octaves(h, m, NULL, entries, NULL);
    make_classes(m, entries, NULL, most, c);
}

/* The body of an empty message. */
static const double EMPTY_BITS = 8;

double rotated_fixed_bits(const rotated_classes *c, double map_bits, double T)
{
    double none = T > 0; /* the probability that no unit is sent */
    for (int i = 0; i < c->sizes.count && none > 0; i++) {
        const double keep = atomo__rate_at(c->sizes.size[i], c->sizes.e[i], T).keep;
        none *= keep < 1 ? pow(1 - keep, (double)c->sizes.units[i]) : 0;
    }
    return (1 - none) * map_bits + none * EMPTY_BITS;
}

void rotated_choose(rotated_state *s, int most, double T)
{
    double least = INFINITY;
    rotated_classes c;
    for (rotated_kind kind = 0; kind < ROTATED_KINDS; kind++) {
        if (kind == ROTATED_ROW_MAP && s->shape.rows == 1) continue;
        rotated_map m = s->best[kind];
        int64_t entries[ROTATED_DEPTHS] = {0};
        double square[ROTATED_DEPTHS] = {0};
        const double map_bits = ROTATED_HEADER_BITS + rotated_octave_bits(m.octave, T) + s->bits[kind];
        if (isinf(map_bits)) continue;
        count_octaves(&s->shape, &m, s->energy, entries, square);
        m.pool = 0;
        for (int before = -1; m.pool < ROTATED_POOLS; m.pool++) {
            make_classes(&m, entries, square, most, &c);
            if (c.sizes.count == before) continue; /* the same classes as before */
            before = c.sizes.count;
            atomo__curve_at(&c.sizes.curve, T);
            const double cost =
                c.sizes.curve.error + T * T * (c.sizes.curve.bits + rotated_fixed_bits(&c, map_bits, T));
            if (!(cost < least)) continue;
            least = cost;
            s->map = m;
            s->classes = c;
            s->map_bits = map_bits;
        }
    }
}
