/* adaptive_pool.c - average pooling of [N,H,W,C] to a given size: output row o averages the input rows floor(o H / OH)
 * to ceil((o + 1) H / OH) - 1, and columns likewise, as PyTorch's AdaptiveAvgPool2d. Path: stage 3. */
#include "nn/nn.h"
#include <string.h>

typedef struct dims {
    int64_t h, w, c, oh, ow;
} dims;

static int64_t first(int64_t o, int64_t in, int64_t out)
{
    return o * in / out;
}
static int64_t end(int64_t o, int64_t in, int64_t out)
{
    return ((o + 1) * in + out - 1) / out;
}

ATOMO_CLONES static void add_scaled(int64_t n, float f, const float *restrict x, float *restrict y)
{
    for (int64_t i = 0; i < n; i++) y[i] += f * x[i];
}

/* Adds to y (zeros on entry), for one image: forward, the average of each window of x; backward, each output's gradient
 * in x divided over its window, so that x is gy and y is gx. */
static void image(const dims *s, const float *x, float *y, bool backward)
{
    for (int64_t oy = 0; oy < s->oh; oy++)
        for (int64_t ox = 0; ox < s->ow; ox++) {
            const int64_t y0 = first(oy, s->h, s->oh), y1 = end(oy, s->h, s->oh), at = (oy * s->ow + ox) * s->c;
            const int64_t x0 = first(ox, s->w, s->ow), x1 = end(ox, s->w, s->ow);
            const float f = 1 / (float)((y1 - y0) * (x1 - x0));
            for (int64_t iy = y0; iy < y1; iy++)
                for (int64_t ix = x0; ix < x1; ix++) {
                    const int64_t from = (iy * s->w + ix) * s->c;
                    add_scaled(s->c, f, x + (backward ? at : from), y + (backward ? from : at));
                }
        }
}

static int check(const char *fn, const atomo_tensor *x, int oh, int ow, dims *s, double *shape)
{
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, 4, "adaptive_avg_pool2d: input"));
    ATOMO_REQUIRE(oh >= 1 && ow >= 1, ATOMO_EARG, "%s: output size {%d,%d}, expected >= 1", fn, oh, ow);
    ATOMO_REQUIRE(x->shape[1] > 0 && x->shape[2] > 0, ATOMO_ESHAPE, "%s: input %s has no positions", fn,
                  atomo__shape_text(x));
    *s = (dims){atomo__size(x, 1), atomo__size(x, 2), atomo__size(x, 3), oh, ow};
    shape[0] = x->shape[0], shape[1] = oh, shape[2] = ow, shape[3] = x->shape[3];
    return ATOMO_OK;
}

static void run(const dims *s, int64_t n, const float *x, float *y, bool backward)
{
    const int64_t in = s->h * s->w * s->c, out = s->oh * s->ow * s->c;
    const int64_t a = backward ? out : in, b = backward ? in : out;
    memset(y, 0, (size_t)(n * b) * sizeof(float));
    ATOMO_FOR(i, n, 1, n * in > ATOMO_PARALLEL_MIN, image(s, x + i * a, y + i * b, backward));
}

int atomo_adaptive_avg_pool2d(const atomo_tensor *x, int oh, int ow, atomo_tensor **out)
{
    ATOMO_MAKING(made, x);
    dims s;
    double shape[4];
    ATOMO_TRY(check("adaptive_avg_pool2d", x, oh, ow, &s, shape));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, 4, shape, "adaptive_avg_pool2d"));
    if ((*out)->numel > 0) run(&s, atomo__size(x, 0), atomo__f32(x), atomo__f32(*out), false);
    return atomo__made(&made, ATOMO_OK);
}

int atomo_adaptive_avg_pool2d_backward(const atomo_tensor *x, const atomo_tensor *gy, int oh, int ow, atomo_tensor **gx)
{
    ATOMO_MAKING(made, gy);
    dims s;
    double shape[4];
    ATOMO_TRY(check("adaptive_avg_pool2d backward", x, oh, ow, &s, shape));
    ATOMO_TRY(atomo__expect_gradient(gy, 4, shape, "adaptive_avg_pool2d backward"));
    ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, 4, x->shape, "adaptive_avg_pool2d backward: gx"));
    if ((*gx)->numel > 0) run(&s, atomo__size(x, 0), atomo__f32(gy), atomo__f32(*gx), true);
    return atomo__made(&made, ATOMO_OK);
}
