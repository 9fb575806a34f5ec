/* rotated.c - atoms of a random basis: the gradient is rotated at random, quantised by a fixed rule, and scaled; stage
 * 4 of the path.
 *
 * Algorithm 1 [Wang et al. 2018] has the least variance of all independent draws of the atoms of a fixed basis. For a
 * gradient that is dense in every fixed basis it is better to draw the basis, and to keep its atoms by a fixed rule.
 * Let R be uniformly random and orthonormal, q any function of R g, and S = ||g||^2 / <R g, q>. Then S R^T q is
 * unbiased: <g, ghat> = ||g||^2 in every draw, and rotations that leave g unchanged leave the distribution of the rest
 * unchanged, too (DRIVE, EDEN; docs/compressors.md has the derivation). Entries of about the same energy are rotated
 * together (rotated/classes.c), each class at the rate that one price selects over all tensors (sampling/gaussian.c).
 * Kernels are transformed by the cosines of their taps first, as in `taps`. A tensor of fewer than 256 entries is coded
 * as by `entry`. The message is unbiased for a uniform R; for the R of common/rotation.c no bias could be measured.
 */
#include "atoms/common/coefficients.h"
#include "atoms/rotated.h"
#include "atoms/rotated/state.h"
#include "core/carve.h"
#include <math.h>

static const double FEW_STEP = 0.25; /* step of the atom set `entry`, by which small tensors are coded */
/* The largest ||g||^2; above it decoded entries may overflow. */
static const double LARGEST = 0x1p224;

static const struct atomo__option options[] = {
    {"base", ATOMO_OPTION_ENUM, 0, 0, 1, "taps|none", "basis before the rotation: cosines over the taps of kernels"},
    {"classes", ATOMO_OPTION_INT, ATOMO__ROTATED_CLASSES, 1, ATOMO__CLASSES, NULL,
     "the most classes of entries, by energy, that are rotated apart"},
    {0}};

static bool has_few(const atomo__plan *plan)
{
    return plan->n < ATOMO__LEAST_ROTATED;
}

static rotated_shape shape_of(const atomo__plan *plan)
{
    const double *s = plan->shape;
    rotated_shape h = {.taps = 1, .across = 1, .n = plan->n};
    const bool taps = plan->ndim == 4 && (int)plan->option[ROTATED_BASE] == ROTATED_TAPS && s[1] <= ATOMO__MAX_TAPS &&
                      s[2] <= ATOMO__MAX_TAPS;
    h.rows = plan->custom_rows ? plan->custom_rows : plan->ndim > 1 ? (int64_t)s[0] : 1;
    if (taps && !plan->custom_rows) {
        h.taps = (int64_t)(s[1] * s[2]);
        h.across = (int64_t)s[2];
    }
    h.width = plan->n / h.rows / h.taps;
    if (h.rows > 1) return h;
    h.width = ATOMO_MIN((int64_t)ROTATED_RUN, plan->n);
    h.taps = h.across = 1;
    h.rows = (plan->n + h.width - 1) / h.width;
    return h;
}

static void carve_state(rotated_state *s, atomo__carver *c)
{
    const size_t rows = (size_t)s->shape.rows, taps = (size_t)s->shape.taps;
    s->energy = atomo__carve(c, rows * taps, sizeof(double));
    for (rotated_kind k = 0; k < ROTATED_KINDS; k++)
        s->best[k] = (rotated_map){.kind = k, .depth = atomo__carve(c, taps, 1)};
    s->best[ROTATED_ROW_MAP].rise = atomo__carve(c, rows, 1);
}

static int plan(atomo__plan *plan)
{
    if (has_few(plan)) return atomo__entries_plan(plan);
    ATOMO_REQUIRE(plan->n <= INT32_MAX / 2, ATOMO_ELIMIT,
                  "rotated: tensor %s has %.0f entries, at most 2^30 can be rotated", plan->name, (double)plan->n);
    rotated_state s = {.shape = shape_of(plan)};
    rotated_room m;
    atomo__carver c = {.size = sizeof s};
    carve_state(&s, &c);
    plan->state_size = c.size;
    plan->scratch = rotated_scratch(&s.shape, NULL, &m);
    /* at most 32 bits an entry, 16 a row, 32 a tap, and for each unit 12 bytes */
    const size_t n = (size_t)plan->n, classes = ATOMO_MIN((size_t)ATOMO__CLASSES, n / ATOMO__LEAST_ROTATED + 1);
    plan->body_max =
        4 * n + 2 * (size_t)s.shape.rows + 4 * (size_t)s.shape.taps + 12 * (n / ATOMO__LEAST_CUT + classes) + 64;
    return ATOMO_OK;
}

static int start(atomo__plan *plan)
{
    if (has_few(plan)) return ATOMO_OK;
    rotated_state *s = atomo__rotated_state(plan);
    s->shape = shape_of(plan);
    atomo__carver c = {.block = s, .size = sizeof *s};
    carve_state(s, &c);
    return s->shape.taps > 1 ? atomo__tap_cosines_make(&s->cosines, plan->ndim, plan->shape) : ATOMO_OK;
}

static void stop(atomo__plan *plan)
{
    if (!has_few(plan)) atomo__tap_cosines_free(&atomo__rotated_state(plan)->cosines);
}

/* Computes row r of the coefficients of a kernel's gradient; returns its address. */
static float *transform_row(const rotated_state *s, const float *g, int64_t r, const rotated_room *m)
{
    const int64_t size = s->shape.taps * s->shape.width;
    float *x = m->x + r * size;
    memcpy(x, g + r * size, sizeof(float) * (size_t)size);
    atomo__tap_cosines_channel(&s->cosines, size, x, false, m->row);
    return x;
}

/* Returns the coefficients of g: g itself if taps are not transformed. */
static const float *coefficients(const atomo__plan *plan, const float *g, const atomo__context *c)
{
    const rotated_state *s = atomo__rotated_state(plan);
    if (s->shape.taps == 1) {
        if (c->held) *c->held = NULL; /* the scratch memory no longer holds a tensor's coefficients */
        return g;
    }
    rotated_room m;
    rotated_scratch(&s->shape, c->scratch, &m);
    if (!c->held || *c->held != plan->state)
        for (int64_t r = 0; r < s->shape.rows; r++) transform_row(s, g, r, &m);
    if (c->held) *c->held = plan->state;
    return m.x;
}

/* Copies the map's bits at T and the classes to the plan, for the budget. */
static void show(atomo__plan *plan, double T)
{
    rotated_state *s = atomo__rotated_state(plan);
    plan->segment = (atomo__segment){.curve = &s->classes.sizes.curve, .n = plan->n, .unit = 1};
    plan->fixed_bits = rotated_fixed_bits(&s->classes, s->map_bits, T);
}

/* Returns the T at which the message is expected to have s->guessed bits. */
static double first_price(rotated_state *s, int most)
{
    rotated_choose(s, most, 0);
    atomo__segment g = {.curve = &s->classes.sizes.curve};
    return atomo__budget_solve(&g, 1, ATOMO_MAX(s->guessed - s->map_bits, s->guessed / 4), 0);
}

static int measure(atomo__plan *plan, const float *g, atomo__context *c)
{
    if (has_few(plan)) return atomo__entries_measure(plan, g, false);
    rotated_state *s = atomo__rotated_state(plan);
    const rotated_shape *h = &s->shape;
    rotated_room m;
    rotated_scratch(h, c->scratch, &m);
    plan->square = 0;
    if (c->held) *c->held = h->taps > 1 ? plan->state : NULL;
    for (int64_t r = 0; r < h->rows; r++) {
        const float *x = h->taps > 1 ? transform_row(s, g, r, &m) : g + r * h->width;
        for (int64_t t = 0; t < h->taps; t++) {
            const double energy = rotated_squares(x + t * h->width, rotated_cell(h, r));
            s->energy[r * h->taps + t] = energy;
            plan->square += energy;
        }
    }
    if (!isfinite(plan->square)) return atomo__refuse_nonfinite(plan, g);
    ATOMO_REQUIRE(plan->square <= LARGEST, ATOMO_ENONFINITE,
                  "%s: gradient of tensor %s: its norm, %g, is too large to be rotated", plan->codec->name, plan->name,
                  sqrt(plan->square));
    rotated_fit(s, m.mean);
    const int most = (int)plan->option[ROTATED_CLASSES];
    const bool known = plan->T > 0 && isfinite(plan->T);
    const double T = known ? plan->T : first_price(s, most);
    rotated_choose(s, most, T);
    show(plan, T);
    return ATOMO_OK;
}

/* Chooses the map again, for the T that the budget found. */
static int refine(atomo__plan *plan, const float *g)
{
    if (has_few(plan)) return atomo__entries_refine(plan, g) < 0 ? atomo__refuse_nonfinite(plan, g) : ATOMO_OK;
    rotated_choose(atomo__rotated_state(plan), (int)plan->option[ROTATED_CLASSES], plan->T);
    show(plan, plan->T);
    return ATOMO_OK;
}

static void guess(atomo__plan *plan, double bits)
{
    if (has_few(plan))
        atomo__entries_guess(plan, bits);
    else
        atomo__rotated_state(plan)->guessed = bits;
}

static void price(atomo__plan *plan, double T)
{
    if (has_few(plan)) {
        atomo__entries_price(plan, T, FEW_STEP);
        return;
    }
    rotated_state *s = atomo__rotated_state(plan);
    atomo__curve_at(&s->classes.sizes.curve, T);
    plan->priced_unit = 0;
    plan->priced_fixed = rotated_fixed_bits(&s->classes, s->map_bits, T) + s->classes.sizes.curve.bits;
    /* With T = 0 all coefficients are sent as floats, also those that a coded message leaves out. */
    const double floats = T > 0 || s->classes.sizes.count == 0 ? 0 : 32 * (double)plan->n;
    plan->priced_fixed = ATOMO_MAX(plan->priced_fixed, floats);
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    if (has_few(plan)) return atomo__entries_encode(plan, g, FEW_STEP, atomo__claim_scratch(c), c, w);
    return rotated_encode(plan, coefficients(plan, g, c), c, w);
}

static void add_inverse(const atomo__plan *plan, const atomo__context *c, float *acc)
{
    const rotated_state *s = atomo__rotated_state(plan);
    rotated_room m;
    rotated_scratch(&s->shape, c->scratch, &m);
    const int64_t size = s->shape.taps * s->shape.width;
    for (int64_t at = 0; at < plan->n; at += size) {
        atomo__tap_cosines_channel(&s->cosines, size, m.x + at, true, m.row);
        atomo__add_scaled(m.x + at, size, 1, acc + at);
    }
}

static void settle(atomo__context *c, float *acc)
{
    if (!c->pending || !c->pending->full) return;
    add_inverse(&c->pending->plan, c, acc);
    c->pending->full = false;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    if (has_few(plan)) return atomo__entries_decode_add(plan->n, FEW_STEP, r, atomo__claim_scratch(c), scale, acc);
    const rotated_state *s = atomo__rotated_state(plan);
    if (c->held) *c->held = NULL;
    if (s->shape.taps == 1) return rotated_read(plan, r, c, scale, acc, false);
    rotated_room m;
    rotated_scratch(&s->shape, c->scratch, &m);
    ATOMO_TRY(rotated_read(plan, r, c, scale, m.x, !(c->pending && c->pending->full)));
    if (c->pending) {
        c->pending->plan = *plan;
        c->pending->full = true;
    } else {
        add_inverse(plan, c, acc);
    }
    return ATOMO_OK;
}

static double bound(const atomo__plan *plan, double bits)
{
    if (has_few(plan) || !(plan->T > 0)) return 0;
    const rotated_state *s = atomo__rotated_state(plan);
    return atomo__classes_bound(&s->classes.sizes, bits);
}

const struct atomo_atoms atomo_atoms_rotated = {
    .name = "rotated",
    .summary = "entries of about one energy in a random basis, quantised and scaled without bias",
    .source = "Vargaftik et al., DRIVE, NeurIPS 2021, and EDEN, ICML 2022; docs/compressors.md",
    .options = options,
    .bound = bound,
    .stages = {.plan = plan,
               .start = start,
               .stop = stop,
               .measure = measure,
               .refine = refine,
               .guess = guess,
               .price = price,
               .encode = encode,
               .decode_add = decode_add,
               .settle = settle},
};
