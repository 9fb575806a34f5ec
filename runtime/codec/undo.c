/* undo.c - restores the state of a codec when a step is abandoned; stages 4 to 6 of the path.
 *
 * A step changes residuals, PowerSGD's factors, kept bases, prices and search intervals. They are all in the plans, the
 * plans' states, and a few numbers of the codec. A step changes them in place, after saving a copy of a plan and its
 * state when it first touches the plan. The residual, which is as large as the gradient, is not copied: a step reads
 * `kept` and writes `residual`, and commit swaps the two. Memory for the copies is allocated with the plan, so nothing
 * is allocated here.
 */
#include "codec/codec.h"
#include "core/carve.h"

static char *state_before(const atomo__plan *p)
{
    return (char *)p->before + atomo__round_up(sizeof *p);
}

size_t atomo__undo_size(const atomo__plan *p)
{
    return atomo__round_up(sizeof *p) + p->state_size;
}

void atomo__plan_open(atomo__plan *p)
{
    if (p->open) return;
    memcpy(p->before, p, sizeof *p);
    if (p->state_size) memcpy(state_before(p), p->state, p->state_size);
    p->open = true;
}

void atomo__undo_note(atomo_codec *c)
{
    c->before.stream = c->stream;
    c->before.energy = c->energy;
    c->before.stats = c->stats;
}

void atomo__undo_commit(atomo_codec *c)
{
    for (int i = 0; i < c->plans; i++) {
        atomo__plan *p = c->plan[i];
        if (!p || !p->open) continue;
        float *sent = p->kept;
        p->kept = p->residual;
        p->residual = sent;
        p->open = false;
    }
}

void atomo__undo(atomo_codec *c)
{
    for (int i = 0; i < c->plans; i++) {
        atomo__plan *p = c->plan[i];
        if (!p || !p->open) continue;
        atomo_tensor *dense = p->dense;  /* may have been made after plan_open */
        memcpy(p, p->before, sizeof *p); /* also sets p->open to false */
        p->dense = dense;
        if (p->state_size) memcpy(p->state, state_before(p), p->state_size);
    }
    c->stream = c->before.stream;
    c->energy = c->before.energy;
    c->stats = c->before.stats;
    c->pending.tensor = 0;
}
