/* gather.c - the plan of a tensor that the caller passes, and its elements in row-major order; stages 4 and 8 of the
 * path. */
#include "codec/codec.h"

int atomo__plan_find(const atomo_codec *c, int tensor, const atomo_tensor *g, const char *what, atomo__plan **out)
{
    *out = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(*out, ATOMO_EARG, "%s: %s: tensor number %d is not planned (1 to %d are)", c->name, what, tensor,
                  c->plans);
    ATOMO_REQUIRE(g, ATOMO_EARG, "%s: %s: the tensor is missing", c->name, what);
    ATOMO_REQUIRE(g->dtype == ATOMO_F32, ATOMO_EDTYPE, "%s: %s: tensor is %s, expected f32", c->name, what,
                  atomo__dtype_name(g->dtype));
    ATOMO_REQUIRE(atomo_codec_is_planned(c, tensor, g->ndim, g->shape), ATOMO_ESHAPE,
                  "%s: %s: tensor is %s, expected %s", c->name, what, atomo__shape_text(g), (*out)->name);
    return ATOMO_OK;
}

int atomo__plan_apart(const atomo_codec *c, const atomo_tensor *t, const uint8_t *bytes, double size, const char *what)
{
    const uintptr_t at = (uintptr_t)bytes;
    uintptr_t first, end;
    atomo__extent(t, &first, &end);
    ATOMO_REQUIRE(end <= at || (first >= at && (double)(first - at) >= size), ATOMO_EARG,
                  "%s: %s: tensor %s and the messages share memory, expected memory that does not overlap", c->name,
                  what, atomo__shape_text(t));
    return ATOMO_OK;
}

int atomo__plan_gather(atomo__plan *p, const atomo_tensor *t, float **values)
{
    *values = atomo__f32(t);
    if (atomo_tensor_is_contiguous(t)) return ATOMO_OK;
    if (!p->dense) ATOMO_TRY(atomo_tensor_new(ATOMO_F32, p->ndim, p->shape, &p->dense));
    *values = atomo__f32(p->dense);
    return atomo_copy(p->dense, t);
}

int atomo__plan_scatter(const atomo__plan *p, const float *values, atomo_tensor *t)
{
    return values == t->data ? ATOMO_OK : atomo_copy(t, p->dense);
}
