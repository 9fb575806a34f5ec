/* conv_rows.c - convolution with stride 1 directly on the rows of the image, without gathering patches. For kernels
 * larger than 3x3 whose number of input channels is no multiple of 16 (LeNet's); AVX-512 only. Path: stage 3.
 *
 * In an image [h,w,c] the kw * c floats under one row of the kernel are adjacent, for any c.
 *   y[p,:]        = sum over (ky, j) of x[row(p) + ky, j] wt[ky, j, :]       tiles of pixels x 16 outputs in registers
 *   gw[o, ky, :]  = sum over pixels p of gy[p, o] x[row(p) + ky, 0 .. kw c)   tiles of outputs x 16 taps in registers
 * Every element is summed in a fixed order, so the bits depend on the shapes only, not on the number of threads. Images
 * with padding are first copied into a frame of zeros. The gradient of the images is computed by conv_gemm.c.
 */
#include "nn/conv.h"
#include "nn/nn.h"
#include <string.h>

#ifdef ATOMO_X86
#include <immintrin.h>

enum { LANES = 16, ROWS = 8, VECTORS = 4, IMAGES = 4 };

/* The operands of tile(): c [rows, vectors * 16] = init + sum over segments and steps of a[r][..] b[..]. */
typedef struct product {
    const float *a[ROWS], *b, *init;
    float *c;
    int64_t segments, steps;   /* the sum has segments * steps terms */
    int64_t a_segment, a_step; /* floats from one segment or step to the next in a[r] */
    int64_t b_segment, b_step; /* likewise in b */
    int64_t c_row;             /* floats from one row of c to the next */
    int64_t init_row;          /* the same for init; 0: all rows start from one row (init NULL: from 0) */
    __mmask16 last;            /* the lanes of the last vector that exist */
} product;

#define AVX512 __attribute__((target("avx512f")))
#define KERNEL AVX512 static inline __attribute__((always_inline))

KERNEL __m512 load(const product *p, int v, int vectors, const float *at)
{
    return v == vectors - 1 ? _mm512_maskz_loadu_ps(p->last, at + v * LANES) : _mm512_loadu_ps(at + v * LANES);
}

/* Computes one tile; rows and vectors are constants after inlining. */
KERNEL void tile(int rows, int vectors, const product *p)
{
    __m512 sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = p->init ? load(p, v, vectors, p->init + r * p->init_row) : _mm512_setzero_ps();
    for (int64_t s = 0; s < p->segments; s++) {
        const float *b = p->b + s * p->b_segment;
        for (int64_t i = 0, at = s * p->a_segment; i < p->steps; i++, at += p->a_step, b += p->b_step) {
            __m512 w[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) w[v] = load(p, v, vectors, b);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const __m512 f = _mm512_set1_ps(p->a[r][at]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_fmadd_ps(f, w[v], sum[r][v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            float *c = p->c + r * p->c_row + v * LANES;
            _mm512_mask_storeu_ps(c, v == vectors - 1 ? p->last : (__mmask16)0xffff, sum[r][v]);
        }
}

#define TILE(rows, vectors)                                                                                            \
    AVX512 static void tile_##rows##_##vectors(const product *p)                                                       \
    {                                                                                                                  \
        tile(rows, vectors, p);                                                                                        \
    }
#define TILES(vectors)                                                                                                 \
    TILE(1, vectors)                                                                                                   \
    TILE(2, vectors)                                                                                                   \
    TILE(3, vectors)                                                                                                   \
    TILE(4, vectors)                                                                                                   \
    TILE(5, vectors)                                                                                                   \
    TILE(6, vectors)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILE(7, 1)
TILE(8, 1)
TILE(7, 2)
TILE(8, 2)
TILE(7, 3)
TILE(8, 3)
#define SIX(v) tile_1_##v, tile_2_##v, tile_3_##v, tile_4_##v, tile_5_##v, tile_6_##v
static void (*const tiles[VECTORS][ROWS])(const product *p) = {{SIX(1), tile_7_1, tile_8_1},
                                                               {SIX(2), tile_7_2, tile_8_2},
                                                               {SIX(3), tile_7_3, tile_8_3},
                                                               {SIX(4)}}; /* 6 x 4 sums use all registers */

/* n columns divided into `count` strips of at most 4 vectors, of nearly equal width. */
typedef struct strips {
    int64_t n, vectors, count; /* columns, vectors of 16 columns, strips */
} strips;

static strips strips_of(int64_t n)
{
    strips s = {.n = n, .vectors = (n + LANES - 1) / LANES};
    s.count = (s.vectors + VECTORS - 1) / VECTORS;
    return s;
}

static int64_t strip_start(const strips *s, int64_t k) /* first vector of strip k */
{
    return k * s->vectors / s->count;
}

static int most_rows(int64_t vectors)
{
    return vectors == VECTORS ? 6 : ROWS;
}

static int most_rows_of(const strips *s) /* the most rows that a tile of the widest strip may have */
{
    return most_rows((s->vectors + s->count - 1) / s->count);
}

/* Computes all strips of a product; the pointers of p are to column 0. */
static void run_strips(const strips *s, int rows, product p)
{
    const float *b = p.b, *init = p.init;
    float *c = p.c;
    for (int64_t k = 0; k < s->count; k++) {
        const int64_t from = strip_start(s, k), to = strip_start(s, k + 1), over = to * LANES - s->n;
        p.b = b + from * LANES;
        p.c = c + from * LANES;
        p.init = init ? init + from * LANES : NULL;
        p.last = (__mmask16)(0xffff >> ATOMO_MAX(over, 0));
        tiles[to - from - 1][rows - 1](&p);
    }
}

/* *out = x if there is no padding, else a copy of x with its padding, in *space, which the caller frees (NULL if there
 * is none). *height, *width: of the image with padding. */
static int framed(const conv_shape *s, const float *x, const float **out, void **space, int64_t *height, int64_t *width)
{
    *space = NULL;
    *out = x;
    *height = s->h + 2 * s->padding[0];
    *width = s->w + 2 * s->padding[1];
    if (s->padding[0] == 0 && s->padding[1] == 0) return ATOMO_OK;
    const int64_t image = *height * *width * s->c, row = *width * s->c, h = s->h, c = s->c, w = s->w;
    const int64_t first = s->padding[0] * row + s->padding[1] * c;
    ATOMO_TRY(atomo__scratch(space, (size_t)(s->n * image) * sizeof(float)));
    float *to = *space;
    *out = to;
#pragma omp parallel for schedule(static) if (s->n * image > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s->n; i++) {
        memset(to + i * image, 0, (size_t)image * sizeof(float));
        for (int64_t r = 0; r < h; r++)
            memcpy(to + i * image + first + r * row, x + (i * h + r) * w * c, (size_t)(w * c) * sizeof(float));
    }
    return ATOMO_OK;
}

/* Computes y for the pixels first .. first + rows - 1 of an image. */
static void forward_tile(const conv_shape *s, const strips *outputs, const float *image, int64_t width, const float *wt,
                         const float *bias, int64_t first, int rows, float *y)
{
    product p = {.b = wt, .init = bias, .c = y + first * s->oc, .c_row = s->oc, .a_step = 1};
    p.segments = s->kh;
    p.steps = s->kw * s->c;
    p.a_segment = width * s->c;
    p.b_step = outputs->vectors * LANES;
    p.b_segment = p.steps * p.b_step;
    for (int r = 0; r < rows; r++) p.a[r] = image + ((first + r) / s->ow * width + (first + r) % s->ow) * s->c;
    run_strips(outputs, rows, p);
}

static int forward(const conv_shape *s, const float *x, const float *w, const float *b, float *y)
{
    const strips outputs = strips_of(s->oc);
    const int64_t taps = s->kh * s->kw * s->c, pixels = s->oh * s->ow, columns = outputs.vectors * LANES;
    const int rows = most_rows_of(&outputs);
    const int64_t each = (pixels + rows - 1) / rows;
    const float *from;
    void *frame, *space;
    int64_t height, width;
    ATOMO_TRY(framed(s, x, &from, &frame, &height, &width));
    int rc = atomo__scratch(&space, (size_t)(taps * columns) * sizeof(float));
    if (rc == 0) {
        float *wt = space;
        for (int64_t o = 0; o < columns; o++)
            for (int64_t k = 0; k < taps; k++) wt[k * columns + o] = o < s->oc ? w[o * taps + k] : 0;
#pragma omp parallel for schedule(static)
        for (int64_t t = 0; t < s->n * each; t++) {
            const int64_t i = t / each, first = t % each * rows;
            forward_tile(s, &outputs, from + i * height * width * s->c, width, wt, b, first,
                         (int)ATOMO_MIN(rows, pixels - first), y + i * pixels * s->oc);
        }
        atomo__free(space);
    }
    atomo__free(frame);
    return rc;
}

static int backward_data(const conv_shape *s, const float *gy, const float *w, float *gx)
{
    return atomo__conv_gemm.backward_data(s, gy, w, gx);
}

typedef struct weights { /* the gradient of the weights */
    const conv_shape *s;
    strips taps;                 /* the kw c taps of one row of the kernel */
    int rows;                    /* output channels of a tile */
    int64_t height, width, each; /* of x with padding; tiles per row of the kernel */
    const float *x, *gy;
    float *sums; /* [kh, oc, columns], columns: taps padded to whole vectors */
} weights;

/* Adds the images first .. end - 1 to tile `item` of the sums. */
static void weights_tile(const weights *k, int64_t item, int64_t first, int64_t end)
{
    const conv_shape *s = k->s;
    const int64_t ky = item / k->each, o = item % k->each * k->rows, columns = k->taps.vectors * LANES;
    const int rows = (int)ATOMO_MIN(k->rows, s->oc - o);
    product p = {.segments = s->oh, .steps = s->ow, .a_step = s->oc, .b_step = s->c};
    p.a_segment = s->ow * s->oc;
    p.b_segment = k->width * s->c;
    p.c = k->sums + (ky * s->oc + o) * columns;
    p.init = p.c;
    p.c_row = p.init_row = columns;
    for (int64_t i = first; i < end; i++) {
        p.b = k->x + (i * k->height + ky) * k->width * s->c;
        for (int r = 0; r < rows; r++) p.a[r] = k->gy + i * s->oh * s->ow * s->oc + o + r;
        run_strips(&k->taps, rows, p);
    }
}

static int backward_weights(const conv_shape *s, const float *x, const float *gy, float *gw)
{
    weights k = {.s = s, .taps = strips_of(s->kw * s->c), .gy = gy};
    const int most = most_rows_of(&k.taps);
    const int64_t columns = k.taps.vectors * LANES, row = s->kw * s->c;
    k.each = (s->oc + most - 1) / most;
    k.rows = (int)((s->oc + k.each - 1) / k.each);
    void *frame, *space;
    ATOMO_TRY(framed(s, x, &k.x, &frame, &k.height, &k.width));
    int rc = atomo__scratch(&space, (size_t)(s->kh * s->oc * columns) * sizeof(float));
    if (rc == 0) {
        k.sums = space;
        memset(space, 0, (size_t)(s->kh * s->oc * columns) * sizeof(float));
        /* A few images at a time stay in cache. The static schedule of equal loops gives a tile to the same thread each
         * time, so no barrier is needed between them. */
#pragma omp parallel
        for (int64_t i = 0; i < s->n; i += IMAGES) {
#pragma omp for schedule(static) nowait
            for (int64_t item = 0; item < s->kh * k.each; item++)
                weights_tile(&k, item, i, ATOMO_MIN(i + IMAGES, s->n));
        }
        for (int64_t o = 0; o < s->oc; o++)
            for (int64_t ky = 0; ky < s->kh; ky++)
                memcpy(gw + (o * s->kh + ky) * row, k.sums + (ky * s->oc + o) * columns, (size_t)row * sizeof(float));
        atomo__free(space);
    }
    atomo__free(frame);
    return rc;
}

/* Measured on Zen 5 for 5x5 kernels. 3x3 layers are computed by Winograd's method or oneDNN. */
bool atomo__conv_window_pays(const conv_shape *s, enum conv_pass pass)
{
    bool fits = s->groups == 1 && s->kh * s->kw > 9 && s->c % LANES != 0 && s->oc <= 256 && s->kw * s->c <= 1024;
    for (int i = 0; i < 2; i++) fits = fits && s->stride[i] == 1 && s->dilation[i] == 1;
    return fits && pass != PASS_DATA && __builtin_cpu_supports("avx512f") != 0;
}

const conv_engine atomo__conv_window = {"window", forward, backward_data, backward_weights, NULL};

#else

bool atomo__conv_window_pays(const conv_shape *s, enum conv_pass pass)
{
    (void)s, (void)pass;
    return false;
}

const conv_engine atomo__conv_window = {"window", NULL, NULL, NULL, NULL}; /* never picked */

#endif
