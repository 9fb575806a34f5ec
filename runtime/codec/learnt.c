/* learnt.c - the state that a codec has learnt from earlier steps, as bytes for checkpoints; stages 4 and 5 of the
 * path.
 *
 * A step depends on the memory of error_feedback.c, and on the state that earlier steps left: prices and planned bits
 * of the streaming form, kept bases, auto's choices and the step of its next search. This state does not change what a
 * message means, but it changes which atoms are drawn. One function visits it in a fixed order. Numbers are in the
 * machine's byte order and format.
 */
#include "codec/codec.h"
#include <math.h>

void atomo__learnt_bytes(atomo__learnt_copy *copy, void *data, size_t n)
{
    if (copy->way == ATOMO__COPY_OUT) memcpy(copy->at + copy->size, data, n);
    if (copy->way == ATOMO__COPY_IN) memcpy(data, copy->at + copy->size, n);
    copy->size += n;
}

void atomo__learnt_doubles(atomo__learnt_copy *copy, double *x, size_t n)
{
    atomo__learnt_bytes(copy, x, sizeof *x * n);
    for (size_t i = 0; copy->way == ATOMO__COPY_IN && i < n; i++) copy->bad |= isnan(x[i]);
}

void atomo__learnt_plan(atomo__learnt_copy *copy, atomo__plan *p)
{
    atomo__learnt_doubles(copy, &p->T, 1);
    atomo__learnt_doubles(copy, &p->anchored, 1);
    atomo__learnt_doubles(copy, &p->priced_unit, 1);
    atomo__learnt_doubles(copy, &p->priced_fixed, 1);
    atomo__learnt_doubles(copy, &p->planned, 1);
    atomo__learnt_doubles(copy, &p->square, 1);
}

/* Visits the state of plan p, or if p is NULL of the codec. */
static void copy_learnt(atomo_codec *c, atomo__plan *p, atomo__learnt_copy *copy)
{
    if (!atomo__has_budget(c)) return; /* without a budget nothing is learnt */
    if (p) {
        atomo__learnt_plan(copy, p);
        if (p->atoms && p->atoms->learnt) p->atoms->learnt(p, copy);
        return;
    }
    atomo__learnt_doubles(copy, &c->stream.T, 1);
    atomo__learnt_doubles(copy, &c->stream.aimed, 1);
    atomo__learnt_doubles(copy, &c->stream.owed, 1);
    atomo__learnt_doubles(copy, &c->stream.real, 1);
    atomo__learnt_doubles(copy, &c->energy, 1);
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
    atomo__learnt_copy copy = {.way = ATOMO__COUNT};
    copy_learnt((atomo_codec *)c, p, &copy); /* only ATOMO__COPY_IN changes the codec */
    const double n = (double)copy.size;
    ATOMO_TRY(atomo__output(out, ATOMO_U8, 1, &n, "learnt"));
    copy = (atomo__learnt_copy){.way = ATOMO__COPY_OUT, .at = (*out)->data};
    copy_learnt((atomo_codec *)c, p, &copy);
    return ATOMO_OK;
}

int atomo_codec_set_learnt(atomo_codec *c, int tensor, const atomo_tensor *bytes)
{
    atomo__plan *p;
    ATOMO_TRY(plan_of(c, tensor, "set_learnt", &p));
    ATOMO_TRY(atomo__expect(bytes, ATOMO_U8, 1, "learnt"));
    const char *name = p ? p->name : "of the step";
    atomo__learnt_copy copy = {.way = ATOMO__COUNT};
    copy_learnt(c, p, &copy);
    ATOMO_REQUIRE(bytes->numel == (double)copy.size, ATOMO_ESHAPE,
                  "%s: learnt state of tensor %s is %.0f bytes, expected %zu: was it saved with other options?",
                  c->name, name, bytes->numel, copy.size);
    copy = (atomo__learnt_copy){.way = ATOMO__COPY_IN, .at = (uint8_t *)bytes->data};
    copy_learnt(c, p, &copy);
    ATOMO_REQUIRE(!copy.bad, ATOMO_EFORMAT, "%s: learnt state of tensor %s holds impossible values: is it damaged?",
                  c->name, name);
    return ATOMO_OK;
}
