/* conv_winograd.c - 3x3 convolution of stride 1 by Winograd's minimal filtering [Lavin & Gray 2016]. Path: stage 3.
 *
 * The image is divided into tiles of m x m outputs. A block of tiles is transformed (winograd.c), multiplied by the
 * transformed weights in (m+2)^2 matrix products [tiles, c] x [c, oc], and transformed back. For m = 4 this takes a
 * quarter of the multiplications of direct convolution. Images are in plain [N,H,W,C] layout. The gradient of the data
 * is the same with the weights rotated by 180 degrees; the gradient of the weights is the adjoint, summed over tiles by
 * matrix products. The blocks depend on the shape only, so the bits are the same for any number of threads.
 *
 * Error: see "winograd" in docs/guide.md; measured by tests/spec/nn/nn_winograd_spec.lua.
 */
#include "nn/conv.h"
#include "nn/nn.h"
#include "nn/winograd.h"
#include <omp.h>
#include <string.h>

enum { SMALL = 128 }; /* channels, see is_small */

typedef struct tiling { /* of a correlation: x [n,h,w,c] padded by pad -> y [n,oh,ow,oc] */
    int m, points;      /* a tile has m x m outputs and points = (m + 2)^2 transformed values */
    int64_t h, w, oh, ow, pad[2];
    int64_t rows, columns, total; /* rows and columns of tiles in an image; tiles of all images */
    int64_t block, blocks;        /* tiles in a block; number of blocks */
} tiling;

/* Returns the multiplications per image and pair of channels. */
static int64_t products(int64_t oh, int64_t ow, int m)
{
    return ((oh + m - 1) / m) * ((ow + m - 1) / m) * (m + 2) * (m + 2);
}

/* Returns the tiling of n images. floats: channels of all arrays of a block together, which sets the size of a block.
 */
static tiling tile(int64_t n, int64_t h, int64_t w, int64_t oh, int64_t ow, int64_t pad0, int64_t pad1, int64_t floats)
{
    enum { BLOCK_FLOATS = 1 << 18, LEAST = 64 };
    tiling t = {.h = h, .w = w, .oh = oh, .ow = ow, .pad = {pad0, pad1}};
    t.m = products(oh, ow, 4) < products(oh, ow, 2) ? 4 : 2;
    t.points = (t.m + 2) * (t.m + 2);
    t.rows = (oh + t.m - 1) / t.m;
    t.columns = (ow + t.m - 1) / t.m;
    t.total = n * t.rows * t.columns;
    t.block = ATOMO_MIN(t.total, ATOMO_MAX(LEAST, BLOCK_FLOATS / (t.points * floats)));
    t.blocks = (t.total + t.block - 1) / t.block;
    return t;
}

/* Returns the floats from one point to the next in an array [points, tiles, c]. WINO_LANES more than needed keep it
 * from being a multiple of the page size, where the points' cache lines would compete for the same sets. */
static int64_t step_of(const tiling *t, int64_t c)
{
    return t->block * c + WINO_LANES;
}

/* rows[i * side + j] = address of pixel (y0 + i, x0 + j) of an image [h,w,c], or `outside` if the image has no such
 * pixel.
 */
static void point_at(const float *image, int64_t h, int64_t w, int64_t c, int64_t y0, int64_t x0, int side,
                     const float *outside, const float **rows)
{
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            const int64_t y = y0 + i, x = x0 + j;
            const bool inside = y >= 0 && y < h && x >= 0 && x < w;
            rows[i * side + j] = inside ? image + (y * w + x) * c : outside;
        }
}

typedef struct place {
    int64_t image, y, x; /* y, x: of the tile's first output */
} place;

static place place_of(const tiling *t, int64_t index)
{
    const int64_t in_image = index % (t->rows * t->columns);
    return (place){index / (t->rows * t->columns), in_image / t->columns * t->m, in_image % t->columns * t->m};
}

/* Prefetches a tile's share of an image of `floats` floats, one row of tiles ahead. The hardware does not recognise the
 * few short rows of a tile as a stream; without this, half of a layer's time is spent waiting for memory. */
static inline __attribute__((always_inline)) void prefetch(const tiling *t, const float *image, int64_t floats,
                                                           int64_t index, int write)
{
    enum { LINE = 16 };
    const int64_t tiles = t->rows * t->columns, share = floats / tiles, at = (index + t->columns + 1) * share;
    const int64_t end = ATOMO_MIN(at + share, t->total / tiles * floats);
    if (write)
        for (int64_t i = at; i < end; i += LINE) __builtin_prefetch(image + i, 1, 2);
    else
        for (int64_t i = at; i < end; i += LINE) __builtin_prefetch(image + i, 0, 2);
}

static void input_tile(const tiling *t, const float *x, int64_t c, int64_t index, const float *zeros, float *v)
{
    const float *rows[WINO_POINTS];
    const place p = place_of(t, index);
    prefetch(t, x, t->h * t->w * c, index, 0);
    point_at(x + p.image * t->h * t->w * c, t->h, t->w, c, p.y - t->pad[0], p.x - t->pad[1], t->m + 2, zeros, rows);
    atomo__wino_input(t->m, c, rows, v, step_of(t, c));
}

static void gradient_tile(const tiling *t, const float *gy, int64_t c, int64_t index, const float *zeros, float *v)
{
    const float *rows[WINO_POINTS];
    const place p = place_of(t, index);
    prefetch(t, gy, t->oh * t->ow * c, index, 0);
    point_at(gy + p.image * t->oh * t->ow * c, t->oh, t->ow, c, p.y, p.x, t->m, zeros, rows);
    atomo__wino_gradient(t->m, c, rows, v, step_of(t, c));
}

static void output_tile(const tiling *t, const float *v, int64_t c, int64_t index, const float *bias, bool add,
                        float *sink, float *y)
{
    float *rows[WINO_POINTS];
    const place p = place_of(t, index);
    prefetch(t, y, t->oh * t->ow * c, index, 1);
    point_at(y + p.image * t->oh * t->ow * c, t->oh, t->ow, c, p.y, p.x, t->m, sink, (const float **)rows);
    atomo__wino_output(t->m, c, v, step_of(t, c), bias, add, rows);
}

/* u [points, c, oc] = the transform of weights [3,3,c,oc], or if `turned` of weights [c,3,3,oc] rotated by 180 degrees.
 */
static void transform_weights(const tiling *t, bool turned, int64_t c, int64_t oc, const float *w, float *u)
{
    const int64_t next = turned ? 9 * oc : oc, apart = turned ? oc : c * oc;
#pragma omp parallel for schedule(static) if (oc * c > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < c; i++) atomo__wino_weight(t->m, turned, oc, w + i * next, apart, u + i * oc, oc * c);
}

/* wt [n, oc] = the transpose of w [oc, n]. */
static void transpose_weights(int64_t oc, int64_t n, const float *w, float *wt)
{
#pragma omp parallel for schedule(static) if (oc * n > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += WINO_LANES)
        for (int64_t o = 0; o < oc; o += WINO_LANES)
            for (int64_t k = 0; k < WINO_LANES; k++)
                for (int64_t l = 0; l < WINO_LANES; l++) wt[(i + k) * oc + o + l] = w[(o + l) * n + i + k];
}

/* Returns whether small_gemm.c computes the products; measured faster than sgemm up to SMALL channels. */
static bool is_small(int64_t c, int64_t oc)
{
    return atomo__small_gemm_runs() && c <= SMALL && oc <= SMALL;
}

typedef struct correlation { /* y = x * w, or y += x * w */
    tiling t;
    int64_t c, oc;
    bool turned, small, add; /* turned: weights are [c,3,3,oc], rotated; small: is_small; add: y += */
    const float *x, *u, *bias, *zeros;
    float *y;
} correlation;

/* product [n,oc] = v [n,c] u [c,oc] */
static int multiply(const correlation *k, int64_t n, const float *v, const float *u, float *product)
{
    if (!k->small) return atomo__sgemm(false, false, n, k->oc, k->c, v, k->c, u, k->oc, 0, product, k->oc);
    atomo__small_gemm(false, n, k->oc, k->c, v, k->c, u, k->oc, false, product, k->oc);
    return ATOMO_OK;
}

/* Computes block b of tiles. space: scratch for the transformed inputs, the products, and oc floats per thread to which
 * outputs beyond the image are written. */
static int correlate_block(const correlation *k, int64_t b, float *space)
{
    const tiling *t = &k->t;
    const int64_t first = b * t->block, n = ATOMO_MIN(t->block, t->total - first), c = k->c, oc = k->oc;
    const int64_t vs = step_of(t, c), ms = step_of(t, oc);
    float *v = space, *product = v + t->points * vs, *sink = product + t->points * ms;
    int rc = ATOMO_OK;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) input_tile(t, k->x, c, first + i, k->zeros, v + i * c);
#pragma omp parallel for schedule(static)
    for (int e = 0; e < t->points; e++) {
        int one = multiply(k, n, v + e * vs, k->u + e * c * oc, product + e * ms);
        if (one < 0) {
#pragma omp atomic write
            rc = one;
        }
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        output_tile(t, product + i * oc, oc, first + i, k->bias, k->add, sink + omp_get_thread_num() * oc, k->y);
    return rc;
}

/* Runs blocks in parallel if there are at least as many as threads, else the loops inside each block. */
static int correlate(correlation *k, const float *w)
{
    const tiling *t = &k->t;
    const int threads = omp_get_max_threads();
    const bool outer = t->blocks >= threads;
    const int64_t weights = t->points * k->c * k->oc, transposed = k->turned ? 0 : 9 * k->c * k->oc;
    const int64_t each = t->points * (step_of(t, k->c) + step_of(t, k->oc)) + (outer ? 1 : threads) * k->oc;
    void *space;
    ATOMO_TRY(
        atomo__scratch(&space, (size_t)(weights + transposed + k->c + (outer ? threads : 1) * each) * sizeof(float)));
    float *u = space, *wt = u + weights, *zeros = wt + transposed, *blocks = zeros + k->c;
    memset(zeros, 0, (size_t)k->c * sizeof(float));
    if (!k->turned) transpose_weights(k->oc, 9 * k->c, w, wt);
    transform_weights(t, k->turned, k->c, k->oc, k->turned ? w : wt, u);
    k->u = u;
    k->zeros = zeros;
    int rc = ATOMO_OK;
    if (!outer) /* outside of any parallel region: libgomp would start new threads for each nested region */
        for (int64_t b = 0; b < t->blocks && rc == 0; b++) rc = correlate_block(k, b, blocks);
    else
#pragma omp parallel for schedule(static)
        for (int64_t b = 0; b < t->blocks; b++) {
            int one = correlate_block(k, b, blocks + omp_get_thread_num() * each);
            if (one < 0) {
#pragma omp atomic write
                rc = one;
            }
        }
    atomo__free(space);
    return rc;
}

static int forward(const conv_shape *s, const float *x, const float *w, const float *b, float *y)
{
    correlation k = {.c = s->c, .oc = s->oc, .x = x, .bias = b, .y = y};
    k.small = is_small(s->c, s->oc);
    k.t = tile(s->n, s->h, s->w, s->oh, s->ow, s->padding[0], s->padding[1], s->c + s->oc);
    return correlate(&k, w);
}

static int data_gradient(const conv_shape *s, const float *gy, const float *w, bool add, float *gx)
{
    correlation k = {.c = s->oc, .oc = s->c, .turned = true, .small = is_small(s->c, s->oc), .add = add};
    k.x = gy;
    k.y = gx;
    k.t = tile(s->n, s->oh, s->ow, s->h, s->w, 2 - s->padding[0], 2 - s->padding[1], s->c + s->oc);
    return correlate(&k, w);
}

static int backward_data(const conv_shape *s, const float *gy, const float *w, float *gx)
{
    return data_gradient(s, gy, w, false, gx);
}

static int backward_data_add(const conv_shape *s, const float *gy, const float *w, float *gx)
{
    return data_gradient(s, gy, w, true, gx);
}

static int backward_weights(const conv_shape *s, const float *x, const float *gy, float *gw)
{
    const tiling tiles = tile(s->n, s->h, s->w, s->oh, s->ow, s->padding[0], s->padding[1], s->c + s->oc), *t = &tiles;
    const int64_t c = s->c, oc = s->oc, xs = step_of(t, c), gs = step_of(t, oc), most = ATOMO_MAX(c, oc);
    const bool small = is_small(c, oc);
    void *space;
    ATOMO_TRY(atomo__scratch(&space, (size_t)(t->points * (xs + gs + oc * c) + most) * sizeof(float)));
    float *xv = space, *gv = xv + t->points * xs, *sums = gv + t->points * gs, *zeros = sums + t->points * oc * c;
    memset(zeros, 0, (size_t)most * sizeof(float));
    int rc = ATOMO_OK;
    for (int64_t b = 0; b < t->blocks && rc == 0; b++) {
        const int64_t first = b * t->block, n = ATOMO_MIN(t->block, t->total - first);
#pragma omp parallel
        {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < n; i++) {
                input_tile(t, x, c, first + i, zeros, xv + i * c);
                gradient_tile(t, gy, oc, first + i, zeros, gv + i * oc);
            }
#pragma omp for schedule(static)
            for (int e = 0; e < t->points; e++) {
                float *sum = sums + e * oc * c;
                int one = ATOMO_OK;
                if (small)
                    atomo__small_gemm(true, oc, c, n, gv + e * gs, oc, xv + e * xs, c, b > 0, sum, c);
                else
                    one = atomo__sgemm(true, false, oc, c, n, gv + e * gs, oc, xv + e * xs, c, b ? 1 : 0, sum, c);
                if (one < 0) {
#pragma omp atomic write
                    rc = one;
                }
            }
        }
    }
#pragma omp parallel for schedule(static) if (oc * c > ATOMO_PARALLEL_MIN)
    for (int64_t o = 0; o < oc; o++) atomo__wino_weight_gradient(t->m, c, sums + o * c, oc * c, gw + o * 9 * c);
    atomo__free(space);
    return rc;
}

bool atomo__conv_winograd_fits(const conv_shape *s)
{
    bool fits = s->kh == 3 && s->kw == 3 && s->groups == 1 && s->c % WINO_LANES == 0 && s->oc % WINO_LANES == 0;
    for (int i = 0; i < 2; i++) fits = fits && s->stride[i] == 1 && s->dilation[i] == 1 && s->padding[i] <= 2;
    return fits;
}

/* With few channels the transforms take as much time as the fewer products save; the limit is lower if the products run
 * in small_gemm.c. There must be enough pixels to pay for the transform of the weights. */
bool atomo__conv_winograd_pays(const conv_shape *s)
{
    const int64_t least = atomo__small_gemm_runs() ? 16 : 32;
    return s->c >= least && s->oc >= least && s->n * s->oh * s->ow >= 64;
}

const conv_engine atomo__conv_winograd = {"winograd", forward, backward_data, backward_weights, backward_data_add};
