/* recurrent.c - one layer of an LSTM [Hochreiter & Schmidhuber 1997] or a GRU [Cho et al. 2014] over a whole sequence,
 * in PyTorch's gate order (i, f, g, o; r, z, n). The caller computes the input part xg = x W_ih^T + b_ih of all steps
 * as one product. This file computes the rest, where h' and c' are h and c of the step before: LSTM  c = f c' + i g,  h
 * = o tanh(c),       i, f, o = sigmoid(.), g = tanh(.) of xg + h' W_hh^T + b_hh GRU   h = (1 - z) n + z h', r, z =
 * sigmoid(.),    n = tanh(xg_n + r (h' W_hn^T + b_hn)) Each kind of cell is a forward and a backward function in a
 * table. The gradient of W_hh is one product over all steps. Path: stage 3. */
#include "nn/nn.h"
#include "tensor/vmath.h"
#include <limits.h>
#include <string.h>

/* One step of one row, of hidden size n. xg: the input part of the gates. r = h' W_hh^T + b_hh. h0, c0: h and c of the
 * step before; h, c: (out) of this one. saved [4 n]: (out) for the backward. c0 and c are NULL for a GRU. */
typedef void step_forward(int64_t n, const float *restrict xg, const float *restrict r, const float *restrict h0,
                          const float *restrict c0, float *restrict saved, float *restrict h, float *restrict c);
/* The backward of one step of one row. gh: gradient of this step's h. gc: gradient of this step's c, replaced by that
 * of the c before. gx, gr: (out) gradients of xg and r (LSTM: both are the same memory). gh0: (out) the part of the
 * gradient of h' that does not pass through r. */
typedef void step_backward(int64_t n, const float *restrict saved, const float *restrict h0, const float *restrict c0,
                           const float *restrict c, const float *restrict gh, float *restrict gc, float *gx, float *gr,
                           float *restrict gh0);

ATOMO_CLONES static void lstm_forward(int64_t n, const float *restrict xg, const float *restrict r,
                                      const float *restrict h0, const float *restrict c0, float *restrict saved,
                                      float *restrict h, float *restrict c)
{
    (void)h0;
    for (int64_t k = 0; k < n; k++) {
        const float i = atomo__sigmoid(xg[k] + r[k]), f = atomo__sigmoid(xg[n + k] + r[n + k]);
        const float g = atomo__tanh(xg[2 * n + k] + r[2 * n + k]), o = atomo__sigmoid(xg[3 * n + k] + r[3 * n + k]);
        saved[k] = i, saved[n + k] = f, saved[2 * n + k] = g, saved[3 * n + k] = o;
        c[k] = f * c0[k] + i * g;
        h[k] = o * atomo__tanh(c[k]);
    }
}

ATOMO_CLONES static void lstm_backward(int64_t n, const float *restrict saved, const float *restrict h0,
                                       const float *restrict c0, const float *restrict c, const float *restrict gh,
                                       float *restrict gc, float *gx, float *gr, float *restrict gh0)
{
    (void)h0, (void)gr;
    for (int64_t k = 0; k < n; k++) {
        const float i = saved[k], f = saved[n + k], g = saved[2 * n + k], o = saved[3 * n + k], t = atomo__tanh(c[k]);
        const float d = gc[k] + gh[k] * o * (1 - t * t);
        gx[k] = d * g * i * (1 - i);
        gx[n + k] = d * c0[k] * f * (1 - f);
        gx[2 * n + k] = d * i * (1 - g * g);
        gx[3 * n + k] = gh[k] * t * o * (1 - o);
        gc[k] = d * f;
        gh0[k] = 0;
    }
}

ATOMO_CLONES static void gru_forward(int64_t n, const float *restrict xg, const float *restrict rec,
                                     const float *restrict h0, const float *restrict c0, float *restrict saved,
                                     float *restrict h, float *restrict c)
{
    (void)c0, (void)c;
    for (int64_t k = 0; k < n; k++) {
        const float r = atomo__sigmoid(xg[k] + rec[k]), z = atomo__sigmoid(xg[n + k] + rec[n + k]);
        const float a = atomo__tanh(xg[2 * n + k] + r * rec[2 * n + k]);
        saved[k] = r, saved[n + k] = z, saved[2 * n + k] = a, saved[3 * n + k] = rec[2 * n + k];
        h[k] = (1 - z) * a + z * h0[k];
    }
}

ATOMO_CLONES static void gru_backward(int64_t n, const float *restrict saved, const float *restrict h0,
                                      const float *restrict c0, const float *restrict c, const float *restrict gh,
                                      float *restrict gc, float *gx, float *gr, float *restrict gh0)
{
    (void)c0, (void)c, (void)gc;
    for (int64_t k = 0; k < n; k++) {
        const float r = saved[k], z = saved[n + k], a = saved[2 * n + k], q = saved[3 * n + k];
        const float d = gh[k] * (1 - z) * (1 - a * a);
        gr[k] = gx[k] = d * q * r * (1 - r);
        gr[n + k] = gx[n + k] = gh[k] * (h0[k] - a) * z * (1 - z);
        gx[2 * n + k] = d;
        gr[2 * n + k] = d * r;
        gh0[k] = gh[k] * z;
    }
}

static const struct cell {
    const char *name;
    int gates;
    bool has_c;
    step_forward *forward;
    step_backward *backward;
} cells[ATOMO_CELL_COUNT] = {
    [ATOMO_LSTM] = {"lstm", 4, true, lstm_forward, lstm_backward},
    [ATOMO_GRU] = {"gru", 3, false, gru_forward, gru_backward},
};

typedef struct dims {
    const struct cell *cell;
    int64_t t, n, h, g; /* steps, rows, hidden size, gates * h */
    int precision;
} dims;

static int expect_state(const dims *s, const atomo_tensor *t, int ndim, int64_t steps, const char *name)
{
    const double shape[3] = {(double)steps, (double)s->n, (double)s->h};
    ATOMO_TRY(atomo__expect(t, ATOMO_F32, ndim, name));
    for (int i = 0; i < ndim; i++)
        ATOMO_REQUIRE(t->shape[i] == shape[3 - ndim + i], ATOMO_ESHAPE, "%s: %s is %s, expected %s", s->cell->name,
                      name, atomo__shape_text(t), atomo__dims_text(ndim, shape + 3 - ndim));
    return ATOMO_OK;
}

static int check(int kind, const atomo_tensor *xg, const atomo_tensor *w, const atomo_tensor *b, const atomo_tensor *h0,
                 const atomo_tensor *c0, int precision, dims *s)
{
    ATOMO_TRY(atomo__expect_precision("recurrent", precision));
    ATOMO_REQUIRE(kind >= 0 && kind < ATOMO_CELL_COUNT, ATOMO_EARG, "recurrent: kind %d, expected 0 to %d", kind,
                  ATOMO_CELL_COUNT - 1);
    const struct cell *cell = &cells[kind];
    ATOMO_TRY(atomo__expect(xg, ATOMO_F32, 3, "recurrent: input"));
    ATOMO_TRY(atomo__expect(w, ATOMO_F32, 2, "recurrent: weight_hh"));
    *s = (dims){cell, atomo__size(xg, 0), atomo__size(xg, 1), atomo__size(w, 1), atomo__size(w, 0), precision};
    ATOMO_REQUIRE(s->h > 0 && s->g == cell->gates * s->h, ATOMO_ESHAPE, "%s: weight_hh is %s, expected [%d H, H]",
                  cell->name, atomo__shape_text(w), cell->gates);
    ATOMO_REQUIRE(atomo__size(xg, 2) == s->g, ATOMO_ESHAPE, "%s: input part is %s, weight_hh is %s", cell->name,
                  atomo__shape_text(xg), atomo__shape_text(w));
    ATOMO_REQUIRE(s->t * s->n <= INT_MAX && s->g <= INT_MAX, ATOMO_ELIMIT, "%s: input part %s is too large for BLAS",
                  cell->name, atomo__shape_text(xg));
    ATOMO_REQUIRE(s->t > 0, ATOMO_ESHAPE, "%s: input part is %s, it has no steps", cell->name, atomo__shape_text(xg));
    if (b) {
        ATOMO_TRY(atomo__expect(b, ATOMO_F32, 1, "recurrent: bias_hh"));
        ATOMO_REQUIRE(atomo__numel(b) == s->g, ATOMO_ESHAPE, "%s: bias_hh is %s, weight_hh is %s", cell->name,
                      atomo__shape_text(b), atomo__shape_text(w));
    }
    ATOMO_TRY(expect_state(s, h0, 2, 0, "h0"));
    return cell->has_c ? expect_state(s, c0, 2, 0, "c0") : ATOMO_OK;
}

/* c = op(a) op(b) + beta c, where b was made before, and a [rows, cols] is rounded for this product. */
static int times(const dims *s, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t rows,
                 int64_t cols, const atomo__factor *b, float beta, float *c)
{
    atomo__factor fa;
    int rc = atomo__factor_make(s->precision, rows, cols, a, cols, &fa);
    if (rc == 0) rc = atomo__product(ta, tb, m, n, k, 1, &fa, b, beta, c, n);
    atomo__factor_free(&fa);
    return rc;
}

/* Runs all steps. r: scratch [n, g]. c0 and c are NULL for a GRU. */
static int run_steps(const dims *s, const float *xg, const atomo__factor *w, const float *b, const float *h0,
                     const float *c0, float *r, float *saved, float *c, float *h)
{
    const float *before = h0, *c_before = c0;
    for (int64_t t = 0; t < s->t && s->n > 0; t++) {
        const int64_t at = t * s->n * s->h;
        for (int64_t i = 0; b && i < s->n; i++) memcpy(r + i * s->g, b, (size_t)s->g * sizeof(float));
        ATOMO_TRY(times(s, false, true, s->n, s->g, s->h, before, s->n, s->h, w, b ? 1 : 0, r));
        for (int64_t i = 0; i < s->n; i++)
            s->cell->forward(s->h, xg + (t * s->n + i) * s->g, r + i * s->g, before + i * s->h,
                             c ? c_before + i * s->h : NULL, saved + 4 * (at + i * s->h), h + at + i * s->h,
                             c ? c + at + i * s->h : NULL);
        before = h + at;
        if (c) c_before = c + at;
    }
    return ATOMO_OK;
}

int atomo_recurrent(int kind, const atomo_tensor *xg, const atomo_tensor *w, const atomo_tensor *b,
                    const atomo_tensor *h0, const atomo_tensor *c0, int precision, atomo_tensor **saved,
                    atomo_tensor **c, atomo_tensor **out)
{
    ATOMO_MAKING(made, xg, w, b, h0, c0);
    dims s;
    ATOMO_TRY(check(kind, xg, w, b, h0, c0, precision, &s));
    const double shape[3] = {(double)s.t, (double)s.n, (double)s.h}, wide[3] = {shape[0], shape[1], 4 * shape[2]};
    ATOMO_TRY(atomo__make(&made, saved, ATOMO_F32, 3, wide, "recurrent: saved"));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, 3, shape, "recurrent"));
    if (s.cell->has_c) ATOMO_TRY(atomo__make(&made, c, ATOMO_F32, 3, shape, "recurrent: c"));
    void *space;
    ATOMO_TRY(atomo__alloc(&space, (size_t)(ATOMO_MAX(s.n, 1) * s.g) * sizeof(float)));
    atomo__factor fw;
    int rc = atomo__factor_make(precision, s.g, s.h, atomo__f32(w), s.h, &fw);
    if (rc == 0)
        rc = run_steps(&s, atomo__f32(xg), &fw, b ? atomo__f32(b) : NULL, atomo__f32(h0),
                       s.cell->has_c ? atomo__f32(c0) : NULL, space, atomo__f32(*saved),
                       s.cell->has_c ? atomo__f32(*c) : NULL, atomo__f32(*out));
    atomo__factor_free(&fw);
    atomo__free(space);
    return atomo__made(&made, rc);
}

typedef struct tape { /* the arrays that the backward reads and writes */
    atomo__factor w;
    const float *h0, *c0, *saved, *c, *h, *gy;
    float *gx, *gr, *gh0, *gc0;
} tape;

/* Runs all steps backwards. p->gh0 and p->gc0 hold the gradients of h and c from the later steps, at the end those of
 * the initial state. gh: scratch [n, h]. */
static int unroll(const dims *s, const tape *p, float *gh)
{
    const int64_t size = s->n * s->h;
    for (int64_t t = s->t - 1; t >= 0; t--) {
        const float *before = t ? p->h + (t - 1) * size : p->h0, *c_before = t && p->c ? p->c + (t - 1) * size : p->c0;
        float *gx = p->gx + t * s->n * s->g, *gr = p->gr + t * s->n * s->g;
        for (int64_t i = 0; i < size; i++) gh[i] = p->gh0[i] + p->gy[t * size + i];
        for (int64_t i = 0; i < s->n; i++) {
            const int64_t at = i * s->h;
            s->cell->backward(s->h, p->saved + 4 * (t * size + at), before + at, c_before ? c_before + at : NULL,
                              p->c ? p->c + t * size + at : NULL, gh + at, p->gc0 ? p->gc0 + at : NULL, gx + i * s->g,
                              gr + i * s->g, p->gh0 + at);
        }
        ATOMO_TRY(times(s, false, false, s->n, s->h, s->g, gr, s->n, s->g, &p->w, 1, p->gh0));
    }
    return ATOMO_OK;
}

/* gw = gr^T h + beta gw, over `rows` rows */
static int add_outer(const dims *s, int64_t rows, const float *gr, const float *h, float beta, float *gw)
{
    atomo__factor fh;
    int rc = atomo__factor_make(s->precision, rows, s->h, h, s->h, &fh);
    if (rc == 0) rc = times(s, true, false, s->g, s->h, rows, gr, rows, s->g, &fh, beta, gw);
    atomo__factor_free(&fh);
    return rc;
}

/* gw = sum over steps of gr^T h' */
static int weight_gradient(const dims *s, const tape *p, float *gw)
{
    ATOMO_TRY(add_outer(s, s->n, p->gr, p->h0, 0, gw));
    return s->t > 1 ? add_outer(s, (s->t - 1) * s->n, p->gr + s->n * s->g, p->h, 1, gw) : ATOMO_OK;
}

static int copy_or_zero(const atomo_tensor *from, atomo_tensor *to)
{
    return from ? atomo_copy(to, from) : atomo_fill(to, 0);
}

int atomo_recurrent_backward(int kind, const atomo_tensor *w, const atomo_tensor *h0, const atomo_tensor *c0,
                             const atomo_tensor *saved, const atomo_tensor *c, const atomo_tensor *y,
                             const atomo_tensor *gy, const atomo_tensor *gc, int precision, atomo_tensor **gxg,
                             atomo_tensor **gw, atomo_tensor **gb, atomo_tensor **gh0, atomo_tensor **gc0)
{
    ATOMO_MAKING(made, w, h0, c0, saved, c, y, gy, gc);
    dims s;
    const double wide = w ? w->shape[0] : 0, shape[3] = {y->shape[0], y->shape[1], wide};
    ATOMO_TRY(atomo__make(&made, gxg, ATOMO_F32, 3, shape, "recurrent backward: gx"));
    ATOMO_TRY(check(kind, *gxg, w, NULL, h0, c0, precision, &s));
    ATOMO_TRY(atomo__expect_gradient(gy, 3, y->shape, "recurrent backward"));
    if (gc) ATOMO_TRY(expect_state(&s, gc, 2, 0, "gc"));
    ATOMO_TRY(atomo__make(&made, gw, ATOMO_F32, 2, w->shape, "recurrent backward: gweight_hh"));
    if (gb) ATOMO_TRY(atomo__make(&made, gb, ATOMO_F32, 1, w->shape, "recurrent backward: gbias_hh"));
    ATOMO_TRY(atomo__make(&made, gh0, ATOMO_F32, 2, h0->shape, "recurrent backward: gh0"));
    ATOMO_TRY(atomo_fill(*gh0, 0));
    if (s.cell->has_c) {
        ATOMO_TRY(atomo__make(&made, gc0, ATOMO_F32, 2, h0->shape, "recurrent backward: gc0"));
        ATOMO_TRY(copy_or_zero(gc, *gc0));
    }
    const int64_t rows = ATOMO_MAX(s.n, 1), own = s.cell->has_c ? 0 : s.t * rows * s.g; /* the LSTM's gr is its gx */
    void *space;
    ATOMO_TRY(atomo__alloc(&space, (size_t)(rows * s.h + own) * sizeof(float)));
    float *gr = own ? (float *)space + rows * s.h : atomo__f32(*gxg);
    tape p = {{0},
              atomo__f32(h0),
              s.cell->has_c ? atomo__f32(c0) : NULL,
              atomo__f32(saved),
              s.cell->has_c ? atomo__f32(c) : NULL,
              atomo__f32(y),
              atomo__f32(gy),
              atomo__f32(*gxg),
              gr,
              atomo__f32(*gh0),
              s.cell->has_c ? atomo__f32(*gc0) : NULL};
    int rc = atomo__factor_make(precision, s.g, s.h, atomo__f32(w), s.h, &p.w);
    if (rc == 0 && s.n > 0) {
        rc = unroll(&s, &p, space);
        if (rc == 0) rc = weight_gradient(&s, &p, atomo__f32(*gw));
        if (rc == 0 && gb) rc = atomo__column_sums(gr, s.t * s.n, s.g, atomo__f32(*gb));
    } else if (rc == 0) {
        rc = atomo_fill(*gw, 0);
        if (rc == 0 && gb) rc = atomo_fill(*gb, 0);
    }
    atomo__factor_free(&p.w);
    atomo__free(space);
    return atomo__made(&made, rc);
}
