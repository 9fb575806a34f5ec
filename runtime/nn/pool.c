/* pool.c - pooling of [N,H,W,C]: max, average, and the mean over all positions.
 *
 * Own kernels rather than oneDNN's: they are bound by memory, channels are innermost so that a window is a few vector
 * operations, and the maximum's position is found again in the backward instead of being stored (oneDNN keeps a
 * workspace). Path: stage 3.
 */
#include "nn/nn.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct pool_shape {
    int64_t n, h, w, c, oh, ow;
    const atomo_window *g;
} pool_shape;

static int check(const char *fn, const atomo_tensor *x, const atomo_window *g, pool_shape *s)
{
    char what[64];
    snprintf(what, sizeof what, "%s: input", fn);
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, 4, what));
    ATOMO_TRY(atomo__check_window(g, fn));
    for (int i = 0; i < 2; i++)
        ATOMO_REQUIRE(g->kernel[i] >= 1 && g->kernel[i] < 1 << 24 && 2 * g->padding[i] <= g->kernel[i], ATOMO_EARG,
                      "%s: kernel {%d,%d} with padding {%d,%d}, expected kernel >= 1 and padding <= kernel / 2", fn,
                      g->kernel[0], g->kernel[1], g->padding[0], g->padding[1]);
    *s = (pool_shape){atomo__size(x, 0), atomo__size(x, 1), atomo__size(x, 2), atomo__size(x, 3), 0, 0, g};
    s->oh = atomo__window_count(s->h, g->kernel[0], g->stride[0], g->padding[0], g->dilation[0]);
    s->ow = atomo__window_count(s->w, g->kernel[1], g->stride[1], g->padding[1], g->dilation[1]);
    ATOMO_REQUIRE(s->oh > 0 && s->ow > 0, ATOMO_ESHAPE, "%s: input %s is smaller than the kernel {%d,%d}", fn,
                  atomo__shape_text(x), g->kernel[0], g->kernel[1]);
    return ATOMO_OK;
}

static int check_gradient(const char *fn, const pool_shape *s, const atomo_tensor *gy)
{
    double shape[4] = {(double)s->n, (double)s->oh, (double)s->ow, (double)s->c};
    return atomo__expect_gradient(gy, 4, shape, fn);
}

/* Offset of window element (ky, kx) of output (oy, ox) in an image, or -1 where it is padding. */
static inline int64_t source(const pool_shape *s, int64_t oy, int64_t ox, int ky, int kx)
{
    int64_t y = oy * s->g->stride[0] + (int64_t)ky * s->g->dilation[0] - s->g->padding[0];
    int64_t x = ox * s->g->stride[1] + (int64_t)kx * s->g->dilation[1] - s->g->padding[1];
    return y < 0 || y >= s->h || x < 0 || x >= s->w ? -1 : (y * s->w + x) * s->c;
}

ATOMO_CLONES static void take_max(int64_t c, const float *restrict x, float *restrict y)
{
    for (int64_t i = 0; i < c; i++) y[i] = (x[i] > y[i]) | (x[i] != x[i]) ? x[i] : y[i]; /* NaN wins and stays */
}

ATOMO_CLONES static void add(int64_t c, const float *restrict x, float *restrict y)
{
    for (int64_t i = 0; i < c; i++) y[i] += x[i];
}

ATOMO_CLONES static void scale(int64_t c, float f, float *y)
{
    for (int64_t i = 0; i < c; i++) y[i] *= f;
}

ATOMO_CLONES static void take_argmax(int64_t c, int position, const float *restrict x, float *restrict best,
                                     int32_t *restrict at)
{
    for (int64_t i = 0; i < c; i++) {
        const int wins = (x[i] > best[i]) | (x[i] != x[i]) | (at[i] < 0);
        best[i] = wins ? x[i] : best[i];
        at[i] = wins ? position : at[i];
    }
}

ATOMO_CLONES static void add_where(int64_t c, int position, const int32_t *restrict at, const float *restrict gy,
                                   float *restrict gx)
{
    for (int64_t i = 0; i < c; i++) gx[i] += at[i] == position ? gy[i] : 0;
}

static void max_window(const pool_shape *s, const float *x, int64_t oy, int64_t ox, float *y)
{
    bool first = true;
    for (int ky = 0; ky < s->g->kernel[0]; ky++)
        for (int kx = 0; kx < s->g->kernel[1]; kx++) {
            int64_t at = source(s, oy, ox, ky, kx);
            if (at < 0) continue;
            if (first) memcpy(y, x + at, (size_t)s->c * sizeof(float));
            else take_max(s->c, x + at, y);
            first = false;
        }
    if (first)
        for (int64_t i = 0; i < s->c; i++) y[i] = -INFINITY; /* a dilated window wholly in the padding */
}

static void max_window_backward(const pool_shape *s, const float *x, const float *gy, int64_t oy, int64_t ox, float *gx)
{
    enum { CHUNK = 256 };
    float best[CHUNK];
    int32_t at[CHUNK];
    for (int64_t c0 = 0; c0 < s->c; c0 += CHUNK) {
        const int64_t m = ATOMO_MIN(CHUNK, s->c - c0);
        memset(at, -1, sizeof at);
        memset(best, 0, sizeof best);
        for (int pass = 0; pass < 2; pass++)
            for (int ky = 0, k = 0; ky < s->g->kernel[0]; ky++)
                for (int kx = 0; kx < s->g->kernel[1]; kx++, k++) {
                    int64_t from = source(s, oy, ox, ky, kx);
                    if (from < 0) continue;
                    if (pass == 0) take_argmax(m, k, x + from + c0, best, at);
                    else add_where(m, k, at, gy + c0, gx + from + c0);
                }
    }
}

static void avg_window(const pool_shape *s, float f, const float *x, int64_t oy, int64_t ox, float *y)
{
    memset(y, 0, (size_t)s->c * sizeof(float));
    for (int ky = 0; ky < s->g->kernel[0]; ky++)
        for (int kx = 0; kx < s->g->kernel[1]; kx++) {
            int64_t at = source(s, oy, ox, ky, kx);
            if (at >= 0) add(s->c, x + at, y);
        }
    scale(s->c, f, y);
}

ATOMO_CLONES static void add_scaled(int64_t c, float f, const float *restrict x, float *restrict y)
{
    for (int64_t i = 0; i < c; i++) y[i] += f * x[i];
}

static void avg_window_backward(const pool_shape *s, float f, const float *gy, int64_t oy, int64_t ox, float *gx)
{
    for (int ky = 0; ky < s->g->kernel[0]; ky++)
        for (int kx = 0; kx < s->g->kernel[1]; kx++) {
            int64_t at = source(s, oy, ox, ky, kx);
            if (at >= 0) add_scaled(s->c, f, gy, gx + at);
        }
}

static int forward(const char *fn, bool max, const atomo_tensor *x, const atomo_window *g, atomo_tensor **out)
{
    pool_shape s;
    ATOMO_TRY(check(fn, x, g, &s));
    double shape[4] = {(double)s.n, (double)s.oh, (double)s.ow, (double)s.c};
    ATOMO_TRY(atomo__output(out, ATOMO_F32, 4, shape, fn));
    const float f = 1 / (float)((double)g->kernel[0] * g->kernel[1]), *xd = atomo__f32(x);
    float *yd = atomo__f32(*out);
#pragma omp parallel for collapse(2) if (x->numel > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t oy = 0; oy < s.oh; oy++)
            for (int64_t ox = 0; ox < s.ow; ox++) {
                const float *xi = xd + i * s.h * s.w * s.c;
                float *y = yd + ((i * s.oh + oy) * s.ow + ox) * s.c;
                if (max) max_window(&s, xi, oy, ox, y);
                else avg_window(&s, f, xi, oy, ox, y);
            }
    return ATOMO_OK;
}

static int backward(const char *fn, bool max, const atomo_tensor *x, const atomo_tensor *gy, const atomo_window *g,
                    atomo_tensor **gx)
{
    pool_shape s;
    ATOMO_TRY(check(fn, x, g, &s));
    ATOMO_TRY(check_gradient(fn, &s, gy));
    ATOMO_TRY(atomo__output(gx, ATOMO_F32, 4, x->shape, fn));
    const float f = 1 / (float)((double)g->kernel[0] * g->kernel[1]), *xd = atomo__f32(x), *gd = atomo__f32(gy);
    float *out = atomo__f32(*gx);
    const int64_t image = s.h * s.w * s.c;
#pragma omp parallel for if (x->numel > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s.n; i++) {
        memset(out + i * image, 0, (size_t)image * sizeof(float));
        for (int64_t oy = 0; oy < s.oh; oy++)
            for (int64_t ox = 0; ox < s.ow; ox++) {
                const float *gyo = gd + ((i * s.oh + oy) * s.ow + ox) * s.c;
                if (max) max_window_backward(&s, xd + i * image, gyo, oy, ox, out + i * image);
                else avg_window_backward(&s, f, gyo, oy, ox, out + i * image);
            }
    }
    return ATOMO_OK;
}

int atomo_max_pool2d(const atomo_tensor *x, const atomo_window *g, atomo_tensor **out)
{
    return forward("max_pool2d", true, x, g, out);
}

int atomo_max_pool2d_backward(const atomo_tensor *x, const atomo_tensor *gy, const atomo_window *g, atomo_tensor **gx)
{
    return backward("max_pool2d backward", true, x, gy, g, gx);
}

int atomo_avg_pool2d(const atomo_tensor *x, const atomo_window *g, atomo_tensor **out)
{
    return forward("avg_pool2d", false, x, g, out);
}

int atomo_avg_pool2d_backward(const atomo_tensor *x, const atomo_tensor *gy, const atomo_window *g, atomo_tensor **gx)
{
    return backward("avg_pool2d backward", false, x, gy, g, gx);
}
