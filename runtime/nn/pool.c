/* pool.c - pooling of [N,H,W,C]: max and average over windows.
 *
 * These kernels are used instead of oneDNN's. They are bound by memory. Channels are innermost, so a window takes a few
 * vector operations. The backward finds the position of each maximum again, whereas oneDNN stores it in a workspace.
 * Path: stage 3.
 */
#include "nn/nn.h"
#include "nn/pool_tiling.h"
#include <math.h>
#include <omp.h>
#include <string.h>

typedef struct pool_shape {
    int64_t n, h, w, c, oh, ow;
    const atomo_window *g;
    bool max, include_padding; /* max: maximum, else average; include_padding, divisor: averages only */
    int divisor;               /* 0: the size of the window */
} pool_shape;

/* Returns the number of windows along dimension i (0 height, 1 width) of `size` pixels. With ceil_mode the last window
 * may extend beyond the padding at the end, but must begin before that padding. */
static int64_t window_count(const atomo_window *g, int i, int64_t size)
{
    const int64_t more = g->ceil_mode ? g->stride[i] - 1 : 0;
    const int64_t room = size + 2 * g->padding[i] - (int64_t)g->dilation[i] * (g->kernel[i] - 1) - 1 + more;
    if (room < 0 || size < 1) return 0;
    const int64_t n = room / g->stride[i] + 1;
    return g->ceil_mode && (n - 1) * g->stride[i] >= size + g->padding[i] ? n - 1 : n;
}

static int check(const char *fn, const atomo_tensor *x, const atomo_window *g, pool_shape *s)
{
    ATOMO_TRY(atomo__expect_argument(x, ATOMO_F32, 4, fn, "input"));
    ATOMO_TRY(atomo__check_window(g, fn));
    for (int i = 0; i < 2; i++)
        ATOMO_REQUIRE(g->kernel[i] >= 1 && g->kernel[i] < 1 << 24 && 2 * g->padding[i] <= g->kernel[i], ATOMO_EARG,
                      "%s: kernel {%d,%d} with padding {%d,%d}, expected kernel >= 1 and padding <= kernel / 2", fn,
                      g->kernel[0], g->kernel[1], g->padding[0], g->padding[1]);
    s->n = atomo__size(x, 0), s->h = atomo__size(x, 1), s->w = atomo__size(x, 2), s->c = atomo__size(x, 3);
    s->oh = window_count(g, 0, s->h), s->ow = window_count(g, 1, s->w);
    s->g = g;
    ATOMO_REQUIRE(s->oh > 0 && s->ow > 0, ATOMO_ESHAPE, "%s: input %s is smaller than the kernel {%d,%d}", fn,
                  atomo__shape_text(x), g->kernel[0], g->kernel[1]);
    return ATOMO_OK;
}

static int check_gradient(const char *fn, const pool_shape *s, const atomo_tensor *gy)
{
    double shape[4] = {(double)s->n, (double)s->oh, (double)s->ow, (double)s->c};
    return atomo__expect_gradient(gy, 4, shape, fn);
}

/* Element (ky, kx) of the windows of one row of outputs. It is inside the image for the outputs first .. end - 1. */
typedef struct tap {
    int64_t first, end;
    int64_t x, step; /* offset of the element of output `first` in the image; from one output to the next; in floats */
} tap;

static bool tap_of(const pool_shape *s, int64_t oy, int ky, int kx, tap *t)
{
    int64_t y = oy * s->g->stride[0] + (int64_t)ky * s->g->dilation[0] - s->g->padding[0];
    int64_t off = (int64_t)kx * s->g->dilation[1] - s->g->padding[1];
    if (y < 0 || y >= s->h) return false;
    atomo__window_inside(s->w, s->ow, s->g->stride[1], off, &t->first, &t->end);
    t->x = (y * s->w + t->first * s->g->stride[1] + off) * s->c;
    t->step = s->g->stride[1] * s->c;
    return t->first < t->end;
}

/* The row kernels, for n outputs of c channels each: x (or gx) advances by `step` floats per output, the others by c.
 */
ATOMO_CLONES static void row_max(int64_t n, int64_t c, int64_t step, const float *restrict x, float *restrict y)
{
    for (int64_t o = 0; o < n; o++, x += step, y += c)
        for (int64_t i = 0; i < c; i++) y[i] = ((x[i] > y[i]) | (x[i] != x[i])) ? x[i] : y[i]; /* NaN is the maximum */
}

ATOMO_CLONES static void row_argmax(int64_t n, int64_t c, int64_t step, int position, const float *restrict x,
                                    float *restrict best, int32_t *restrict at)
{
    for (int64_t o = 0; o < n; o++, x += step, best += c, at += c)
        for (int64_t i = 0; i < c; i++) {
            const int wins = (x[i] > best[i]) | ((x[i] != x[i]) & (best[i] == best[i])) | (at[i] < 0);
            best[i] = wins ? x[i] : best[i];
            at[i] = wins ? position : at[i];
        }
}

ATOMO_CLONES static void row_add_where(int64_t n, int64_t c, int64_t step, int position, const int32_t *restrict at,
                                       const float *restrict gy, float *restrict gx)
{
    for (int64_t o = 0; o < n; o++, gx += step, gy += c, at += c)
        for (int64_t i = 0; i < c; i++) gx[i] += at[i] == position ? gy[i] : 0;
}

ATOMO_CLONES static void row_add(int64_t n, int64_t c, int64_t step, const float *restrict x, float *restrict y)
{
    for (int64_t o = 0; o < n; o++, x += step, y += c)
        for (int64_t i = 0; i < c; i++) y[i] += x[i];
}

ATOMO_CLONES static void row_spread(int64_t n, int64_t c, int64_t step, const float *restrict gy, float *restrict gx)
{
    for (int64_t o = 0; o < n; o++, gx += step, gy += c)
        for (int64_t i = 0; i < c; i++) gx[i] += gy[i];
}

ATOMO_CLONES static void scale(int64_t n, float f, const float *x, float *y)
{
    for (int64_t i = 0; i < n; i++) y[i] = f * x[i];
}

/* Returns how many rows (i = 0) or columns (i = 1) of window o count for the average: those inside the image, with
 * include_padding also those inside the padding. */
static int64_t extent(const pool_shape *s, int i, int64_t size, int64_t o)
{
    const int64_t from = o * s->g->stride[i] - s->g->padding[i];
    const int64_t to = ATOMO_MIN(from + s->g->kernel[i], size + s->g->padding[i]);
    return s->include_padding ? to - from : ATOMO_MIN(to, size) - ATOMO_MAX(from, 0);
}

/* y = x for one row of outputs, each divided by its divisor. */
static void divide(const pool_shape *s, int64_t oy, const float *x, float *y)
{
    const int64_t height = extent(s, 0, s->h, oy);
    for (int64_t ox = 0; ox < s->ow; ox++) {
        const double count = s->divisor ? s->divisor : (double)(height * extent(s, 1, s->w, ox));
        scale(s->c, 1 / (float)count, x + ox * s->c, y + ox * s->c);
    }
}

/* Computes row oy of the outputs of one image. */
static void forward_row(const pool_shape *s, bool max, const float *x, int64_t oy, float *y)
{
    tap t;
    for (int64_t i = 0; i < s->ow * s->c; i++) y[i] = max ? -INFINITY : 0;
    for (int ky = 0; ky < s->g->kernel[0]; ky++)
        for (int kx = 0; kx < s->g->kernel[1]; kx++)
            if (tap_of(s, oy, ky, kx, &t)) {
                if (max)
                    row_max(t.end - t.first, s->c, t.step, x + t.x, y + t.first * s->c);
                else
                    row_add(t.end - t.first, s->c, t.step, x + t.x, y + t.first * s->c);
            }
    if (!max) divide(s, oy, y, y);
}

/* at [ow c] = the element (ky * kw + kx) of the window that is the maximum, for each output of a row; best: scratch
 * [ow c]. */
static void find_max_row(const pool_shape *s, const float *x, int64_t oy, float *best, int32_t *at)
{
    tap t;
    memset(at, -1, (size_t)(s->ow * s->c) * sizeof *at);
    for (int ky = 0, k = 0; ky < s->g->kernel[0]; ky++)
        for (int kx = 0; kx < s->g->kernel[1]; kx++, k++)
            if (tap_of(s, oy, ky, kx, &t))
                row_argmax(t.end - t.first, s->c, t.step, k, x + t.x, best + t.first * s->c, at + t.first * s->c);
}

/* Finds the position of each maximum, then adds gy to gx there; best and at: scratch [ow c]. */
static void max_backward_row(const pool_shape *s, const float *x, const float *gy, int64_t oy, float *best, int32_t *at,
                             float *gx)
{
    tap t;
    find_max_row(s, x, oy, best, at);
    for (int ky = 0, k = 0; ky < s->g->kernel[0]; ky++)
        for (int kx = 0; kx < s->g->kernel[1]; kx++, k++)
            if (tap_of(s, oy, ky, kx, &t))
                row_add_where(t.end - t.first, s->c, t.step, k, at + t.first * s->c, gy + t.first * s->c, gx + t.x);
}

/* Adds each output's gradient, divided by its divisor, to all pixels of its window; share: scratch [ow c]. */
static void avg_backward_row(const pool_shape *s, const float *gy, int64_t oy, float *share, float *gx)
{
    tap t;
    divide(s, oy, gy, share);
    for (int ky = 0; ky < s->g->kernel[0]; ky++)
        for (int kx = 0; kx < s->g->kernel[1]; kx++)
            if (tap_of(s, oy, ky, kx, &t)) row_spread(t.end - t.first, s->c, t.step, share + t.first * s->c, gx + t.x);
}

/* Returns whether the windows are 2x2 with stride 2, so that they do not overlap; pool_tiling.c computes these without
 * scratch memory. */
static bool is_tiling(const pool_shape *s)
{
    const atomo_window *g = s->g;
    bool tiling = 2 * s->oh <= s->h && 2 * s->ow <= s->w;
    for (int i = 0; i < 2; i++)
        tiling = tiling && g->kernel[i] == 2 && g->stride[i] == 2 && g->padding[i] == 0 && g->dilation[i] == 1;
    return tiling;
}

static int forward(const char *fn, pool_shape s, const atomo_tensor *x, const atomo_window *g, atomo_tensor **out)
{
    ATOMO_MAKING(made, x);
    const bool max = s.max;
    ATOMO_TRY(check(fn, x, g, &s));
    double shape[4] = {(double)s.n, (double)s.oh, (double)s.ow, (double)s.c};
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, 4, shape, fn));
    const float *xd = atomo__f32(x);
    float *yd = atomo__f32(*out);
    const bool tiling = max && is_tiling(&s);
#pragma omp parallel for collapse(2) if (x->numel > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t oy = 0; oy < s.oh; oy++)
            if (tiling)
                atomo__pool_tiling_row(s.ow, s.c, s.w * s.c, xd + (i * s.h + 2 * oy) * s.w * s.c,
                                       yd + (i * s.oh + oy) * s.ow * s.c);
            else
                forward_row(&s, max, xd + i * s.h * s.w * s.c, oy, yd + (i * s.oh + oy) * s.ow * s.c);
    return atomo__made(&made, ATOMO_OK);
}

static int backward(const char *fn, pool_shape s, const atomo_tensor *x, const atomo_tensor *gy, const atomo_window *g,
                    atomo_tensor **gx)
{
    ATOMO_MAKING(made, x, gy);
    const bool max = s.max;
    void *space;
    ATOMO_TRY(check(fn, x, g, &s));
    ATOMO_TRY(check_gradient(fn, &s, gy));
    ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, 4, x->shape, fn));
    const int64_t image = s.h * s.w * s.c, row = s.ow * s.c;
    ATOMO_TRY(atomo__alloc(&space, (size_t)(omp_get_max_threads() * row) * (sizeof(float) + sizeof(int32_t))));
    const float *xd = atomo__f32(x), *gd = atomo__f32(gy);
    float *out = atomo__f32(*gx), *best = space;
    int32_t *at = (int32_t *)(best + omp_get_max_threads() * row);
    const bool tiling = max && is_tiling(&s), edges = !tiling || s.h % 2 || s.w % 2;
#pragma omp parallel for if (x->numel > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s.n; i++) {
        const int64_t mine = omp_get_thread_num() * row;
        if (edges) memset(out + i * image, 0, (size_t)image * sizeof(float));
        for (int64_t oy = 0; oy < s.oh; oy++) {
            const float *gyo = gd + (i * s.oh + oy) * row;
            const int64_t two = i * image + 2 * oy * s.w * s.c;
            if (tiling)
                atomo__pool_tiling_backward_row(s.ow, s.c, s.w * s.c, xd + two, gyo, out + two);
            else if (max)
                max_backward_row(&s, xd + i * image, gyo, oy, best + mine, at + mine, out + i * image);
            else
                avg_backward_row(&s, gyo, oy, best + mine, out + i * image);
        }
    }
    atomo__free(space);
    return atomo__made(&made, ATOMO_OK);
}

static const pool_shape maximum = {.max = true};

int atomo_max_pool2d(const atomo_tensor *x, const atomo_window *g, atomo_tensor **out)
{
    return forward("max_pool2d", maximum, x, g, out);
}

int atomo_max_pool2d_backward(const atomo_tensor *x, const atomo_tensor *gy, const atomo_window *g, atomo_tensor **gx)
{
    return backward("max_pool2d backward", maximum, x, gy, g, gx);
}

/* Replaces the numbers of window elements in `at` by the index y W + x of the pixel. */
static void places(const pool_shape *s, int64_t oy, int32_t *at)
{
    const atomo_window *g = s->g;
    for (int64_t i = 0; i < s->ow * s->c; i++) {
        const int64_t y = oy * g->stride[0] - g->padding[0] + (at[i] / g->kernel[1]) * g->dilation[0];
        const int64_t x = i / s->c * g->stride[1] - g->padding[1] + (at[i] % g->kernel[1]) * g->dilation[1];
        at[i] = at[i] < 0 ? -1 : (int32_t)(y * s->w + x);
    }
}

int atomo_max_pool2d_indices(const atomo_tensor *x, const atomo_window *g, atomo_tensor **out)
{
    ATOMO_MAKING(made, x);
    pool_shape s = maximum;
    void *best;
    ATOMO_TRY(check("max_pool2d", x, g, &s));
    ATOMO_REQUIRE(s.h * s.w <= INT32_MAX, ATOMO_ESHAPE, "max_pool2d: input %s has more positions than i32 can number",
                  atomo__shape_text(x));
    const double shape[4] = {(double)s.n, (double)s.oh, (double)s.ow, (double)s.c};
    ATOMO_TRY(atomo__make(&made, out, ATOMO_I32, 4, shape, "max_pool2d: indices"));
    const int rc = atomo__alloc(&best, (size_t)(s.ow * s.c) * sizeof(float));
    for (int64_t i = 0; rc == 0 && i < s.n * s.oh; i++) {
        int32_t *at = atomo__i32(*out) + i * s.ow * s.c;
        find_max_row(&s, atomo__f32(x) + i / s.oh * s.h * s.w * s.c, i % s.oh, best, at);
        places(&s, i % s.oh, at);
    }
    if (rc == 0) atomo__free(best);
    return atomo__made(&made, rc);
}

static int average(const char *fn, int include_padding, int divisor, pool_shape *s)
{
    ATOMO_REQUIRE(divisor >= 0, ATOMO_EARG, "%s: divisor_override is %d, expected >= 1 (0: none)", fn, divisor);
    *s = (pool_shape){.include_padding = include_padding != 0, .divisor = divisor};
    return ATOMO_OK;
}

int atomo_avg_pool2d(const atomo_tensor *x, const atomo_window *g, int include_padding, int divisor, atomo_tensor **out)
{
    pool_shape s;
    ATOMO_TRY(average("avg_pool2d", include_padding, divisor, &s));
    return forward("avg_pool2d", s, x, g, out);
}

int atomo_avg_pool2d_backward(const atomo_tensor *x, const atomo_tensor *gy, const atomo_window *g, int include_padding,
                              int divisor, atomo_tensor **gx)
{
    pool_shape s;
    ATOMO_TRY(average("avg_pool2d backward", include_padding, divisor, &s));
    return backward("avg_pool2d backward", s, x, gy, g, gx);
}
