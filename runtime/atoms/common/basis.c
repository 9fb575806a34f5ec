/* basis.c - fixed orthonormal bases: transforms the flattened tensor, and codes the coefficients like entries
 * (coefficients.c); stages 4 to 6 and 8 of the path.
 *
 * Scratch memory: [index n, also used by transforms][x n]. If several tensors are measured before they are encoded, the
 * coefficients are computed twice, because keeping all of them would take as much memory as the gradient. They are then
 * measured with a histogram of all of them. If a tensor is encoded right after it is measured (streaming), they stay in
 * the scratch memory, and are probed and refined at T like entries. Mean and variance are those of coefficients.c,
 * because the transform is linear and orthonormal.
 */
#include "atoms/common/basis.h"
#include "core/carve.h"
#include <math.h>

enum { PAD = 2 };                      /* floats that a transform needs beyond n */
static const double LARGEST = 0x1p224; /* the largest ||g||^2; above it sums of drawn coefficients may overflow */

typedef struct {
    uint32_t *index;
    float *work, *x;
} room;

static room room_of(const atomo__plan *plan, const atomo__context *c)
{
    float *work = c->scratch;
    return (room){(uint32_t *)(void *)work, work, work + plan->n + PAD};
}

static size_t own_offset(void)
{
    return atomo__round_up(sizeof(atomo__spectrum));
}

int atomo__basis_plan(atomo__plan *plan, size_t state_size)
{
    ATOMO_TRY(atomo__entries_plan(plan));
    ATOMO_REQUIRE(plan->n <= INT32_MAX / 2, ATOMO_ELIMIT,
                  "%s: tensor %s has %.0f entries, at most 2^30 can be transformed", plan->atoms->name, plan->name,
                  (double)plan->n);
    plan->scratch += sizeof(float) * (size_t)(plan->n + PAD);
    plan->state_size = own_offset() + state_size;
    return ATOMO_OK;
}

void *atomo__basis_state(const atomo__plan *plan)
{
    return (char *)plan->state + own_offset();
}

void atomo__basis_runs(const atomo__plan *plan, float *x, bool inverse, atomo__run_fn *run)
{
    for (int64_t left = plan->n; left > 0;) {
        const int64_t size = (int64_t)1 << (63 - __builtin_clzll((uint64_t)left));
        run(x, size, inverse);
        x += size;
        left -= size;
    }
}

static float *transformed(const atomo__plan *plan, const float *g, const atomo__context *c)
{
    const room m = room_of(plan, c);
    memcpy(m.x, g, sizeof(float) * (size_t)plan->n);
    plan->atoms->transform(plan, m.x, false, m.work);
    if (c->held) *c->held = plan->state;
    return m.x;
}

static int refuse(const atomo__plan *plan, const float *g)
{
    double sum, square;
    float largest;
    atomo__measure(g, plan->n, &sum, &square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(plan, g);
    return atomo__fail(ATOMO_ENONFINITE, "%s: gradient of tensor %s: entries up to %g may overflow in the transform",
                       plan->codec->name, plan->name, (double)largest);
}

int atomo__basis_measure(atomo__plan *plan, const float *g, atomo__context *c)
{
    const bool stays = c->next && c->held;
    const int rc = atomo__entries_measure(plan, transformed(plan, g, c), !stays);
    return rc < 0 || (!stays && plan->square > LARGEST) ? refuse(plan, g) : ATOMO_OK;
}

int atomo__basis_refine(atomo__plan *plan, const float *g)
{
    const atomo__spectrum *s = plan->state;
    if (!s->open) return ATOMO_OK;
    const atomo__context c = {.scratch = plan->codec->scratch};
    const int rc = atomo__entries_refine(plan, room_of(plan, &c).x);
    return rc < 0 || plan->square > LARGEST ? refuse(plan, g) : ATOMO_OK;
}

void atomo__basis_price(atomo__plan *plan, double T)
{
    atomo__entries_price(plan, T, plan->option[0]);
}

int atomo__basis_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const room m = room_of(plan, c);
    const float *x = c->held && *c->held == plan->state ? m.x : transformed(plan, g, c);
    return atomo__entries_encode(plan, x, plan->option[0], m.index, c, w);
}

static void add_inverse(const atomo__plan *plan, const room *m, float *acc)
{
    plan->atoms->transform(plan, m->x, true, m->work);
    atomo__add_scaled(m->x, plan->n, 1, acc);
}

void atomo__basis_settle(atomo__context *c, float *acc)
{
    if (!c->pending || !c->pending->full) return;
    const room m = room_of(&c->pending->plan, c);
    add_inverse(&c->pending->plan, &m, acc);
    c->pending->full = false;
}

int atomo__basis_decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const room m = room_of(plan, c);
    const bool more = c->pending && c->pending->full && c->pending->plan.state == plan->state;
    if (!more) {
        atomo__basis_settle(c, acc);
        memset(m.x, 0, sizeof(float) * (size_t)plan->n);
    }
    ATOMO_TRY(atomo__entries_decode_add(plan->n, plan->option[0], r, m.index, scale, m.x));
    if (c->pending) {
        c->pending->plan = *plan;
        c->pending->full = true;
    } else {
        add_inverse(plan, &m, acc);
    }
    return ATOMO_OK;
}

int atomo_codec_transform(const atomo_codec *c, int tensor, atomo_tensor *x, int inverse)
{
    const atomo__plan *plan = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(plan && plan->atoms && plan->atoms->transform, ATOMO_EARG,
                  "%s: transform: tensor %d is not planned, or there is no fixed basis", c->name, tensor);
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "transform: x"));
    ATOMO_REQUIRE(atomo_codec_is_planned(c, tensor, x->ndim, x->shape), ATOMO_ESHAPE,
                  "%s: transform: tensor is %s, expected %s", c->name, atomo__shape_text(x), plan->name);
    plan->atoms->transform(plan, atomo__f32(x), inverse != 0, c->scratch);
    return ATOMO_OK;
}
