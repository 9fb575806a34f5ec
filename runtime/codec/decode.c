/* decode.c - decodes messages into averages; stage 8 of the path. */
#include "codec/codec.h"
#include <math.h>

atomo__frame atomo__frame_wanted(const atomo__plan *p, double rank, double step)
{
    return atomo__frame_of(p, rank < 0 ? UINT32_MAX : (uint32_t)rank, step < 0 ? UINT32_MAX : (uint32_t)step);
}

static int decode_one(atomo_codec *c, int tensor, double step, double rank, const uint8_t *bytes, double size,
                      double scale, atomo_tensor *acc, double *used)
{
    *used = 0;
    if (tensor == 0) ATOMO_TRY(tensor = atomo_codec_tensor_of(bytes, size));
    ATOMO_REQUIRE(size >= 0, ATOMO_EARG, "decode: size is %g", size);
    ATOMO_REQUIRE(isfinite(scale), ATOMO_EARG, "decode: scale is %g", scale);
    atomo__plan *p;
    ATOMO_TRY(atomo__plan_find(c, tensor, acc, "decode: acc", &p));
    ATOMO_TRY(atomo__plan_apart(c, acc, bytes, size, "decode: acc"));
    const atomo__frame want = atomo__frame_wanted(p, rank, step);
    atomo__reader body;
    size_t length;
    atomo__frame got;
    ATOMO_TRY(atomo__frame_open(&want, p->name, bytes, (size_t)size, &body, &length, &got));
    atomo__context context = atomo__context_of(p, got.rank, got.step);
    if (c->pending.tensor == p->tensor) context.pending = &c->pending;
    float *sum;
    ATOMO_TRY(atomo__plan_gather(p, acc, &sum));
    int rc = atomo__form_decode(p, &body, &context, (float)scale, sum);
    if (rc < 0 || !atomo__at_end(&body))
        return atomo__fail(ATOMO_EFORMAT,
                           "decode: message for tensor %s: its body of %zu bytes is malformed near byte %zu", p->name,
                           body.size, body.at);
    *used = (double)length;
    return atomo__plan_scatter(p, sum, acc);
}

int atomo_codec_decode_add(atomo_codec *c, int tensor, double step, double rank, const uint8_t *bytes, double size,
                           double scale, atomo_tensor *acc, double *used)
{
    const int rc = decode_one(c, tensor, step, rank, bytes, size, scale, acc, used);
    if (rc < 0) c->pending.tensor = 0; /* the sum is discarded: after a failure acc is not valid */
    return rc;
}

int atomo_codec_sum(atomo_codec *c, int tensor)
{
    ATOMO_REQUIRE(atomo__plan_of(c, tensor), ATOMO_EARG, "%s: sum: tensor %d is not planned", c->name, tensor);
    c->pending.tensor = tensor;
    c->pending.full = false;
    return ATOMO_OK;
}

int atomo_codec_finish(atomo_codec *c, int tensor, double scale, atomo_tensor *acc)
{
    atomo__plan *p;
    ATOMO_REQUIRE(isfinite(scale) && scale > 0, ATOMO_EARG, "finish: scale is %g, expected a number above 0", scale);
    float *sum;
    ATOMO_TRY(atomo__plan_find(c, tensor, acc, "finish: acc", &p));
    ATOMO_TRY(atomo__plan_gather(p, acc, &sum));
    if (c->pending.tensor == tensor) {
        atomo__context context = atomo__context_of(p, 0, 0);
        context.pending = &c->pending;
        if (c->pending.full) c->pending.plan.stages->settle(&context, sum);
        c->pending.tensor = 0;
    }
    if (c->compressor->finish) c->compressor->finish(p, (float)scale, sum);
    return atomo__plan_scatter(p, sum, acc);
}
