/* synthetic.c - the built-in data set: generated 32 x 32 images of ten classes. Path: stage 1.
 *
 * A class is a shape (disc, ring, square, triangle, cross) with a texture (stripes, checks). Position, size, rotation,
 * colours, period and phase of the texture, background, clutter in front and behind, and noise are random, so no single
 * pixel or colour shows the class. A mirrored image has the same class. Image i of a split depends on (seed, split, i)
 * only. Only + - * / and sqrt are used, which IEEE 754 rounds in the same way everywhere, so the bits are the same on
 * every CPU.
 */
#include "tensor/tensor.h"
#include <math.h>
#include <string.h>

enum { SIDE = 32, CHANNELS = 3, PIXELS = SIDE * SIDE * CHANNELS, CLASSES = 10, PARAMETERS = 96, CLUTTER = 5 };

typedef struct {
    float u[PARAMETERS]; /* the image's random numbers in [0, 1), used in order */
    int next;            /* index of the next one */
} dice;

typedef struct {
    float x, y;
} vec;

typedef struct {
    float v[CHANNELS];
} colour;

typedef struct {
    vec centre, axis;           /* axis: unit vector of its length */
    float across, along, alpha; /* radii across and along the axis, in pixels; opacity */
    colour tint;
} blob;

typedef struct {
    int shape, texture;
    vec centre, axis, grain; /* axis, grain: directions of the object and of its texture */
    float radius, period, phase_x, phase_y;
    colour tone[2];        /* of the texture */
    colour ground[2];      /* the background is a gradient between these */
    vec slope;             /* direction of that gradient */
    blob clutter[CLUTTER]; /* the last two are in front of the object */
    float noise;           /* amplitude */
} scene;

static float roll(dice *d, float lo, float hi)
{
    return lo + (hi - lo) * d->u[d->next++];
}

static vec roll_direction(dice *d)
{
    vec v = {roll(d, -1, 1), roll(d, -1, 1)};
    float n = sqrtf(v.x * v.x + v.y * v.y);
    return n > 1e-3f ? (vec){v.x / n, v.y / n} : (vec){1, 0};
}

/* Returns a random direction whose tilt from the x axis has a tangent of at most `most`. */
static vec roll_tilt(dice *d, float most)
{
    float y = roll(d, -most, most), n = sqrtf(1 + y * y);
    return (vec){1 / n, y / n};
}

static colour roll_colour(dice *d, float lo, float hi)
{
    colour c;
    for (int k = 0; k < CHANNELS; k++) c.v[k] = roll(d, lo, hi);
    return c;
}

/* Returns a random colour whose mean brightness differs from that of `other` by at least `apart`. */
static colour roll_apart(dice *d, colour other, float apart)
{
    colour c = roll_colour(d, 0, 1);
    float a = 0, b = 0;
    for (int k = 0; k < CHANNELS; k++) {
        a += c.v[k] / CHANNELS;
        b += other.v[k] / CHANNELS;
    }
    float want = a >= b ? ATOMO_MAX(a, b + apart) : ATOMO_MIN(a, b - apart);
    if (want > 1) want = b - apart;
    if (want < 0) want = b + apart;
    for (int k = 0; k < CHANNELS; k++) c.v[k] = ATOMO_MIN(1.0f, ATOMO_MAX(0.0f, c.v[k] + want - a));
    return c;
}

static scene roll_scene(dice *d, int label)
{
    scene s;
    s.shape = label / 2;
    s.texture = label % 2;
    s.radius = roll(d, 8, 12.5f);
    s.centre.x = 16 + roll(d, -1, 1) * (16 - s.radius);
    s.centre.y = 16 + roll(d, -1, 1) * (16 - s.radius);
    s.axis = roll_tilt(d, 0.4f);
    s.grain = roll_tilt(d, 0.4f);
    s.period = roll(d, 4.5f, 7);
    s.phase_x = roll(d, 0, 1);
    s.phase_y = roll(d, 0, 1);
    s.tone[0] = roll_colour(d, 0.45f, 1);
    s.tone[1] = roll_apart(d, s.tone[0], 0.35f);
    s.ground[0] = roll_colour(d, 0, 0.6f);
    s.ground[1] = roll_colour(d, 0, 0.6f);
    s.slope = roll_direction(d);
    s.noise = roll(d, 0.02f, 0.12f);
    for (int i = 0; i < CLUTTER; i++) {
        blob *b = &s.clutter[i];
        b->centre = (vec){roll(d, 0, SIDE), roll(d, 0, SIDE)};
        b->axis = roll_direction(d);
        b->across = roll(d, 1, 2.2f);
        b->along = roll(d, 2, i < CLUTTER - 2 ? 9 : 5);
        b->alpha = roll(d, 0.4f, 1);
        b->tint = roll_colour(d, 0, 0.8f);
    }
    return s;
}

static vec turn(vec p, vec centre, vec axis) /* p in coordinates with this origin and x axis */
{
    float x = p.x - centre.x, y = p.y - centre.y;
    return (vec){x * axis.x + y * axis.y, y * axis.x - x * axis.y};
}

/* Returns the signed distance of q from the outline of a shape of unit size, negative inside. */
static float outline(int shape, vec q)
{
    float ax = fabsf(q.x), ay = fabsf(q.y), r = sqrtf(q.x * q.x + q.y * q.y);
    switch (shape) {
    case 0:
        return r - 0.86f;
    case 1:
        return fabsf(r - 0.7f) - 0.3f;
    case 2:
        return ATOMO_MAX(ax, ay) - 0.77f;
    case 3:
        return ATOMO_MAX(-q.y, 0.8660254f * ax + 0.5f * q.y) - 0.56f;
    default:
        return ATOMO_MIN(ATOMO_MAX(ax - 1.0f, ay - 0.36f), ATOMO_MAX(ay - 1.0f, ax - 0.36f));
    }
}

static float clamp01(float x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

/* Returns a triangle wave of period 1, clipped to [-1, 1]. */
static float wave(float x)
{
    float t = x - floorf(x), w = 4 * fabsf(t - 0.5f) - 1;
    return ATOMO_MAX(-1.0f, ATOMO_MIN(1.0f, 2.5f * w));
}

static void blend(colour *c, colour over, float alpha)
{
    for (int k = 0; k < CHANNELS; k++) c->v[k] += alpha * (over.v[k] - c->v[k]);
}

static void blend_blob(colour *c, const blob *b, vec p)
{
    vec q = turn(p, b->centre, b->axis);
    float x = q.x / b->along, y = q.y / b->across, r = sqrtf(x * x + y * y);
    blend(c, b->tint, b->alpha * clamp01((1 - r) * b->across + 0.5f));
}

static colour shade(const scene *s, vec p)
{
    colour c = s->ground[0];
    blend(&c, s->ground[1], clamp01(0.5f + ((p.x - 16) * s->slope.x + (p.y - 16) * s->slope.y) / 32));
    for (int i = 0; i < CLUTTER - 2; i++) blend_blob(&c, &s->clutter[i], p);
    vec q = turn(p, s->centre, s->axis), g = turn(p, s->centre, s->grain);
    float cover = clamp01(0.5f - s->radius * outline(s->shape, (vec){q.x / s->radius, q.y / s->radius}));
    if (cover > 0) {
        float w = wave(g.x / s->period + s->phase_x);
        if (s->texture) w *= wave(g.y / s->period + s->phase_y);
        colour t = s->tone[0];
        blend(&t, s->tone[1], 0.5f + 0.5f * w);
        blend(&c, t, cover);
    }
    for (int i = CLUTTER - 2; i < CLUTTER; i++) blend_blob(&c, &s->clutter[i], p);
    return c;
}

static void render(const atomo_stream *stream, int label, uint8_t *out)
{
    dice d = {.next = 0};
    float grain[PIXELS];
    atomo_random_uniform(stream, 0, PARAMETERS, d.u);
    atomo_random_uniform(stream, PARAMETERS, PIXELS, grain);
    const scene s = roll_scene(&d, label);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            colour c = shade(&s, (vec){(float)x + 0.5f, (float)y + 0.5f});
            for (int k = 0; k < CHANNELS; k++) {
                int i = (y * SIDE + x) * CHANNELS + k;
                out[i] = (uint8_t)(255 * clamp01(c.v[k] + s.noise * 2 * (grain[i] - 0.5f)) + 0.5f);
            }
        }
}

int atomo_synthetic(double seed, int split, double first, double n, atomo_tensor **images, atomo_tensor **labels)
{
    ATOMO_REQUIRE(seed >= 0 && seed <= 0x1p53 && seed == (double)(int64_t)seed, ATOMO_EARG,
                  "synthetic: seed %.17g, expected a whole number in [0, 2^53]", seed);
    ATOMO_REQUIRE(split == 0 || split == 1, ATOMO_EARG, "synthetic: split %d, expected 0 (train) or 1 (test)", split);
    ATOMO_REQUIRE(n >= 1 && n <= INT32_MAX && n == (double)(int64_t)n, ATOMO_EARG,
                  "synthetic: %.17g images, expected a whole number of them, at least 1", n);
    ATOMO_REQUIRE(first >= 0 && first + n <= INT32_MAX && first == (double)(int64_t)first, ATOMO_EARG,
                  "synthetic: first image %.17g of %.17g, expected whole numbers below 2^31", first, n);
    double shape[4] = {n, SIDE, SIDE, CHANNELS};
    const bool fresh = !*images;
    ATOMO_TRY(atomo__output(images, ATOMO_U8, 4, shape, "synthetic: images"));
    int rc = atomo__output(labels, ATOMO_I32, 1, shape, "synthetic: labels");
    if (rc < 0 && fresh) {
        atomo_tensor_free(*images);
        *images = NULL;
    }
    if (rc < 0) return rc;
    const uint64_t key = (uint64_t)seed;
    uint8_t *out = (*images)->data;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (int64_t)n; i++) {
        const uint32_t image = (uint32_t)first + (uint32_t)i;
        const atomo_stream s = {{(uint32_t)key, (uint32_t)(key >> 32)}, ATOMO_RNG_SYNTHETIC, 0, (uint32_t)split, image};
        atomo__i32(*labels)[i] = (int32_t)(image % CLASSES);
        render(&s, (int)(image % CLASSES), out + i * PIXELS);
    }
    return ATOMO_OK;
}
