/* learnt.c - what a codec has learnt from earlier steps, as bytes for checkpoints; stages 4 and 5 of the path.
 *
 * Beside the memory of error_feedback.c, a step depends on what earlier ones left: prices and plans of the streaming
 * form, kept bases, auto's choices and when it makes them again. None of it changes what a message means, all of it
 * changes what is drawn. One walk goes over it, in a fixed order; numbers are as the machine has them.
 */
#include "codec/codec.h"
#include <math.h>

void atomo__walk_bytes(atomo__walk *w, void *data, size_t n)
{
    if (w->way == ATOMO__COPY_OUT) memcpy(w->at + w->size, data, n);
    if (w->way == ATOMO__COPY_IN) memcpy(data, w->at + w->size, n);
    w->size += n;
}

void atomo__walk_doubles(atomo__walk *w, double *x, size_t n)
{
    atomo__walk_bytes(w, x, sizeof *x * n);
    for (size_t i = 0; w->way == ATOMO__COPY_IN && i < n; i++) w->bad |= isnan(x[i]);
}

void atomo__walk_plan(atomo__walk *w, atomo__plan *p)
{
    atomo__walk_doubles(w, &p->T, 1);
    atomo__walk_doubles(w, &p->anchored, 1);
    atomo__walk_doubles(w, &p->priced_unit, 1);
    atomo__walk_doubles(w, &p->priced_fixed, 1);
    atomo__walk_doubles(w, &p->planned, 1);
    atomo__walk_doubles(w, &p->square, 1);
}

/* Of a plan, or (NULL) of the codec. */
static void walk(atomo_codec *c, atomo__plan *p, atomo__walk *w)
{
    if (!atomo__has_budget(c)) return; /* no budget: every step begins anew */
    if (p) {
        atomo__walk_plan(w, p);
        if (p->atoms && p->atoms->learnt) p->atoms->learnt(p, w);
        return;
    }
    atomo__walk_doubles(w, &c->stream.T, 1);
    atomo__walk_doubles(w, &c->stream.aimed, 1);
    atomo__walk_doubles(w, &c->stream.owed, 1);
    atomo__walk_doubles(w, &c->stream.real, 1);
    atomo__walk_doubles(w, &c->energy, 1);
}

static int plan_of(const atomo_codec *c, int tensor, const char *what, atomo__plan **p)
{
    *p = tensor == 0 ? NULL : atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(tensor == 0 || *p, ATOMO_EARG, "%s: %s of tensor %d: it is not planned", c->name, what, tensor);
    ATOMO_REQUIRE(!c->stream.open, ATOMO_EARG, "%s: %s: step %u has not been ended", c->name, what,
                  (unsigned)c->stream.step);
    return ATOMO_OK;
}

int atomo_codec_learnt(const atomo_codec *c, int tensor, atomo_tensor **out)
{
    atomo__plan *p;
    ATOMO_TRY(plan_of(c, tensor, "learnt", &p));
    atomo__walk w = {.way = ATOMO__COUNT};
    walk((atomo_codec *)c, p, &w); /* changes nothing unless it copies in */
    const double n = (double)w.size;
    ATOMO_TRY(atomo__output(out, ATOMO_U8, 1, &n, "learnt"));
    w = (atomo__walk){.way = ATOMO__COPY_OUT, .at = (*out)->data};
    walk((atomo_codec *)c, p, &w);
    return ATOMO_OK;
}

int atomo_codec_set_learnt(atomo_codec *c, int tensor, const atomo_tensor *bytes)
{
    atomo__plan *p;
    ATOMO_TRY(plan_of(c, tensor, "set_learnt", &p));
    ATOMO_TRY(atomo__expect(bytes, ATOMO_U8, 1, "learnt"));
    const char *name = p ? p->name : "of the step";
    atomo__walk w = {.way = ATOMO__COUNT};
    walk(c, p, &w);
    ATOMO_REQUIRE(bytes->numel == (double)w.size, ATOMO_ESHAPE,
                  "%s: learnt state of tensor %s is %.0f bytes, expected %zu: was it saved with other options?",
                  c->name, name, bytes->numel, w.size);
    w = (atomo__walk){.way = ATOMO__COPY_IN, .at = (uint8_t *)bytes->data};
    walk(c, p, &w);
    ATOMO_REQUIRE(!w.bad, ATOMO_EFORMAT, "%s: learnt state of tensor %s holds impossible values: is it damaged?",
                  c->name, name);
    return ATOMO_OK;
}
