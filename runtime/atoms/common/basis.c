/* basis.c - fixed orthonormal bases: the gradient's coefficients are made by a transform of the flattened tensor and
 * coded as entries are (coefficients.c); stages 4 to 6 and 8 of the path.
 *
 * Scratch: [index n, also what a transform works in][x n]. The coefficients are made twice, to be measured and to be
 * written, unless nothing is between (a tensor at a time): keeping all of them would take a second gradient's memory.
 * Where they stay, their sizes are probed and then refined at T, as entries' are; else all are taken down at once.
 * Promise: what coefficients.c promises, because the transform keeps lengths and means.
 */
#include "atoms/common/basis.h"
#include "core/carve.h"
#include <math.h>

enum { PAD = 2 };                      /* floats that a transform needs beyond n */
static const double LARGEST = 0x1p224; /* ||g||^2: beyond it sums of drawn coefficients may leave the range */

typedef struct {
    uint32_t *index;
    float *work, *x;
} room;

static room room_of(const atomo__part *part, const atomo__coder *c)
{
    float *work = c->scratch;
    return (room){(uint32_t *)(void *)work, work, work + part->n + PAD};
}

static size_t own_offset(void)
{
    return atomo__round_up(sizeof(atomo__spectrum));
}

int atomo__basis_plan(atomo__part *part, size_t state_size)
{
    ATOMO_TRY(atomo__entries_plan(part));
    ATOMO_REQUIRE(part->n <= INT32_MAX / 2, ATOMO_ELIMIT,
                  "%s: tensor %s has %.0f entries, at most 2^30 can be transformed", part->atoms->name, part->name,
                  (double)part->n);
    part->scratch += sizeof(float) * (size_t)(part->n + PAD);
    part->state_size = own_offset() + state_size;
    return ATOMO_OK;
}

void *atomo__basis_state(const atomo__part *part)
{
    return (char *)part->state + own_offset();
}

void atomo__basis_runs(const atomo__part *part, float *x, bool inverse, atomo__run_fn *run)
{
    for (int64_t left = part->n; left > 0;) {
        const int64_t size = (int64_t)1 << (63 - __builtin_clzll((uint64_t)left));
        run(x, size, inverse);
        x += size;
        left -= size;
    }
}

static float *transformed(const atomo__part *part, const float *g, const atomo__coder *c)
{
    const room m = room_of(part, c);
    memcpy(m.x, g, sizeof(float) * (size_t)part->n);
    part->atoms->transform(part, m.x, false, m.work);
    if (c->held) *c->held = part->state;
    return m.x;
}

static int refuse(const atomo__part *part, const float *g)
{
    double sum, square;
    float largest;
    atomo__measure(g, part->n, &sum, &square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(part, g);
    return atomo__fail(ATOMO_ENONFINITE, "%s: gradient of tensor %s: entries up to %g may overflow in the transform",
                       part->codec->name, part->name, (double)largest);
}

int atomo__basis_measure(atomo__part *part, const float *g, atomo__coder *c)
{
    const bool stays = c->next && c->held;
    const int rc = atomo__entries_measure(part, transformed(part, g, c), !stays);
    return rc < 0 || (!stays && part->square > LARGEST) ? refuse(part, g) : ATOMO_OK;
}

int atomo__basis_refine(atomo__part *part, const float *g)
{
    const atomo__spectrum *s = part->state;
    if (!s->open) return ATOMO_OK;
    const atomo__coder c = {.scratch = part->codec->scratch};
    const int rc = atomo__entries_refine(part, room_of(part, &c).x);
    return rc < 0 || part->square > LARGEST ? refuse(part, g) : ATOMO_OK;
}

void atomo__basis_price(atomo__part *part, double T)
{
    atomo__entries_price(part, T, part->option[0]);
}

int atomo__basis_encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w)
{
    const room m = room_of(part, c);
    const float *x = c->held && *c->held == part->state ? m.x : transformed(part, g, c);
    return atomo__entries_encode(part, x, part->option[0], m.index, c, w);
}

ATOMO_CLONES static void add(const float *x, int64_t n, float *acc)
{
    for (int64_t i = 0; i < n; i++) acc[i] += x[i];
}

static void give(const atomo__part *part, const room *m, float *acc)
{
    part->atoms->transform(part, m->x, true, m->work);
    add(m->x, part->n, acc);
}

void atomo__basis_settle(atomo__coder *c, float *acc)
{
    if (!c->pending || !c->pending->full) return;
    const room m = room_of(&c->pending->part, c);
    give(&c->pending->part, &m, acc);
    c->pending->full = false;
}

int atomo__basis_decode_add(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc)
{
    const room m = room_of(part, c);
    const bool more = c->pending && c->pending->full && c->pending->part.state == part->state;
    if (!more) {
        atomo__basis_settle(c, acc);
        memset(m.x, 0, sizeof(float) * (size_t)part->n);
    }
    ATOMO_TRY(atomo__entries_decode_add(part->n, part->option[0], r, m.index, scale, m.x));
    if (c->pending) {
        c->pending->part = *part;
        c->pending->full = true;
    } else {
        give(part, &m, acc);
    }
    return ATOMO_OK;
}

int atomo_codec_transform(const atomo_codec *c, int tensor, atomo_tensor *x, int inverse)
{
    const atomo__part *part = atomo__part_of(c, tensor);
    ATOMO_REQUIRE(part && part->atoms && part->atoms->transform, ATOMO_EARG,
                  "%s: transform: tensor %d is not planned, or there is no fixed basis", c->name, tensor);
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "transform: x"));
    ATOMO_REQUIRE(atomo_codec_is_planned(c, tensor, x->ndim, x->shape), ATOMO_ESHAPE,
                  "%s: transform: tensor %s was planned, %s came", c->name, part->name, atomo__shape_text(x));
    part->atoms->transform(part, atomo__f32(x), inverse != 0, c->scratch);
    return ATOMO_OK;
}
