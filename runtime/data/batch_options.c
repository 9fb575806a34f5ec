/* batch_options.c - checks a loader's options and converts them to the fields of batch.h. Path: stage 2. */
#include "data/batch.h"
#include "tensor/tensor.h"
#include <string.h>

static int check_channels(const float *mean, const float *std, int64_t c)
{
    for (int i = 0; i < (int)c; i++)
        ATOMO_REQUIRE(std[i] > 0 && std[i] < 1e30f && mean[i] > -1e30f && mean[i] < 1e30f, ATOMO_EARG,
                      "loader: channel %d: mean %g, std %g, expected finite numbers and std > 0", i + 1,
                      (double)mean[i], (double)std[i]);
    return ATOMO_OK;
}

static int check_transform(const atomo_transform *t, int64_t c)
{
    static const struct {
        const char *name;
        float most[3]; /* of p[0], p[1], p[2] */
    } kinds[ATOMO_TRANSFORM_KINDS] = {[ATOMO_NORMALISE] = {"normalise", {0}},
                                      [ATOMO_CROP] = {"crop", {4095}},
                                      [ATOMO_FLIP] = {"flip", {1}},
                                      [ATOMO_CUTOUT] = {"cutout", {65535}},
                                      [ATOMO_COLOUR_JITTER] = {"colour_jitter", {100, 100, 100}},
                                      [ATOMO_MIXUP] = {"mixup", {4}}};
    ATOMO_REQUIRE(t->kind >= 0 && t->kind < ATOMO_TRANSFORM_KINDS, ATOMO_EARG, "loader: unknown transform %d", t->kind);
    if (t->kind == ATOMO_NORMALISE) return check_channels(t->p, t->p + 8, c);
    for (int i = 0; i < 3 && kinds[t->kind].most[i] > 0; i++)
        ATOMO_REQUIRE(t->p[i] >= 0 && t->p[i] <= kinds[t->kind].most[i], ATOMO_EARG,
                      "loader: %s: number %d is %g, expected 0 to %g", kinds[t->kind].name, i + 1, (double)t->p[i],
                      (double)kinds[t->kind].most[i]);
    ATOMO_REQUIRE(t->kind != ATOMO_MIXUP || t->p[0] > 0, ATOMO_EARG,
                  "loader: mixup: alpha is 0, expected a number > 0");
    ATOMO_REQUIRE(t->kind != ATOMO_COLOUR_JITTER || t->p[2] == 0 || c == 3, ATOMO_EARG,
                  "loader: colour_jitter: saturation of images with %lld channels, expected 3", (long long)c);
    return ATOMO_OK;
}

static int check_list(const atomo_loader_options *o, int64_t c)
{
    int mixes = 0;
    ATOMO_REQUIRE(o->transforms >= 0 && o->transforms <= ATOMO_MOST_TRANSFORMS, ATOMO_ELIMIT,
                  "loader: %d transforms, at most %d", o->transforms, ATOMO_MOST_TRANSFORMS);
    for (int k = 0; k < o->transforms; k++) {
        ATOMO_TRY(check_transform(&o->transform[k], c));
        mixes += o->transform[k].kind == ATOMO_MIXUP;
    }
    ATOMO_REQUIRE(mixes <= 1, ATOMO_EARG, "loader: %d times mixup, expected it once", mixes);
    ATOMO_REQUIRE(mixes == 0 || o->classes > 0, ATOMO_EARG, "loader: mixup: the number of classes is not known");
    return ATOMO_OK;
}

int atomo__batch_check(const atomo_tensor *images, const atomo_loader_options *o)
{
    const bool floats = images && images->dtype == ATOMO_F32;
    ATOMO_TRY(atomo__expect(images, floats ? ATOMO_F32 : ATOMO_U8, 4, "loader: images"));
    ATOMO_REQUIRE(images->numel > 0 && images->shape[0] <= INT32_MAX, ATOMO_ESHAPE,
                  "loader: images %s, expected 1 to 2^31-1 of them, not empty", atomo__shape_text(images));
    ATOMO_REQUIRE(images->shape[3] <= 8, ATOMO_ESHAPE, "loader: images %s have %.0f channels, at most 8",
                  atomo__shape_text(images), images->shape[3]);
    ATOMO_REQUIRE(o->seed >= 0 && o->seed <= 0x1p53 && o->seed == (double)(int64_t)o->seed, ATOMO_EARG,
                  "loader: seed %.17g, expected a whole number in [0, 2^53]", o->seed);
    ATOMO_REQUIRE(o->crop >= 0 && o->crop < 4096, ATOMO_EARG, "loader: crop %d, expected 0 to 4095 pixels", o->crop);
    const int64_t c = atomo__size(images, 3);
    return o->transforms ? check_list(o, c) : check_channels(o->mean, o->std, c);
}

/* Turns mean, std, crop and flip into transforms. */
static void make_list(atomo_loader_options *o)
{
    if (o->transforms > 0) return;
    atomo_transform *t = o->transform;
    *t = (atomo_transform){.kind = ATOMO_NORMALISE};
    memcpy(t->p, o->mean, sizeof o->mean);
    memcpy(t->p + 8, o->std, sizeof o->std);
    t++;
    if (o->crop > 0) *t++ = (atomo_transform){ATOMO_CROP, {(float)o->crop}};
    if (o->flip) *t++ = (atomo_transform){ATOMO_FLIP, {0.5f}};
    o->transforms = (int32_t)(t - o->transform);
}

/* Sets o->crop and o->flip from the list; returns whether it is NORMALISE, then CROP or nothing, then FLIP or nothing.
 */
static bool fuse(atomo_loader_options *o)
{
    const atomo_transform *t = o->transform, *end = t + o->transforms;
    o->crop = o->flip = 0;
    if (t->kind != ATOMO_NORMALISE) return false;
    t++;
    if (t < end && t->kind == ATOMO_CROP) o->crop = (int32_t)(t++)->p[0];
    if (t < end && t->kind == ATOMO_FLIP && t->p[0] == 0.5f) o->flip = t++ != NULL;
    return t == end;
}

int atomo__batch_open(atomo__batcher *b, const atomo_tensor *images, const atomo_loader_options *o)
{
    b->images = images->data;
    b->bytes = images->dtype == ATOMO_U8;
    b->n = atomo__size(images, 0);
    b->h = atomo__size(images, 1);
    b->w = atomo__size(images, 2);
    b->c = atomo__size(images, 3);
    b->o = *o;
    b->order_epoch = -1;
    make_list(&b->o);
    b->fused = fuse(&b->o) && b->bytes;
    for (int k = 0; k < b->o.transforms; k++) b->mixes |= b->o.transform[k].kind == ATOMO_MIXUP;
    const size_t row = (size_t)(b->w * b->c);
    ATOMO_TRY(atomo__alloc((void **)&b->scale, row * sizeof(float)));
    ATOMO_TRY(atomo__alloc((void **)&b->shift, row * sizeof(float)));
    ATOMO_TRY(atomo__alloc((void **)&b->row, row));
    if (!b->fused) ATOMO_TRY(atomo__alloc((void **)&b->scratch, 2 * (size_t)b->h * row * sizeof(float)));
    const atomo_transform *t = b->o.transform;
    const double unit = b->bytes ? 255.0 : 1.0;
    const bool normalises = t->kind == ATOMO_NORMALISE;
    for (size_t i = 0; i < row; i++) {
        const size_t k = i % (size_t)b->c;
        const double mean = normalises ? (double)t->p[k] : 0, std = normalises ? (double)t->p[8 + k] : 1;
        b->scale[i] = (float)(1.0 / (unit * std));
        b->shift[i] = (float)(-mean / std);
    }
    return ATOMO_OK;
}

void atomo__batch_close(atomo__batcher *b)
{
    atomo__free(b->scale);
    atomo__free(b->shift);
    atomo__free(b->row);
    atomo__free(b->scratch);
    atomo__free(b->order);
}
