/* powersgd.c - a low-rank approximation by one power iteration with warm start; stages 4 to 6 of the path.
 *
 * Vogels, Karimireddy, Jaggi, "PowerSGD: Practical low-rank gradient compression for distributed optimization",
 * NeurIPS 2019, algorithm 1, on one rank's gradient M [out, rest]: P = M Q, P is orthonormalised, Q = M^T P, and P Q^T
 * is sent as its two factors in f32. The tensor's next step starts from this Q (warm start). The first Q is drawn from
 * (seed, tensor), the same on every rank. It is biased, so use it with ef=true. P is orthonormal to 1e-6 (two passes of
 * Gram-Schmidt, in double; directions that are not in M become 0), so the error is exactly ||g - ghat||^2 = ||M||^2 -
 * ||Q||^2 <= ||M||^2. If the gradient stays the same, it converges to the error of the best rank-r matrix.
 *
 * There are two forms. As messages, for exchanges that gather them, the P Q^T of all ranks are averaged. As sums (the
 * paper's form, topology allreduce), M Q is summed over the ranks before the orthonormalisation, and M^T P after it.
 * Both are linear in M, and Q is the same on all ranks, so the result is one power iteration on the mean gradient. It
 * takes two all-reduces per step, one after the other, of r (rows + cols) floats in all, for any number of ranks.
 */
#include "compress/common/levels.h"
#include "core/packages.h"
#include <math.h>

enum { RANK, WARM };
enum { BIAS = 256, SEED_PURPOSE = ATOMO_RNG_INIT };

static const struct atomo__option options[] = {
    {"rank", ATOMO_OPTION_INT, 2, 1, 64, NULL, "rank of the approximation"},
    {"warm", ATOMO_OPTION_BOOL, 1, 0, 1, NULL, "start from the last step's Q; false: from a random one every step"},
    {0}};

typedef struct {
    atomo__fold fold;
    int rank;
    float q[]; /* [rank, cols]: row j is column j of Q */
} state;

static atomo__fold fold_of(const atomo__plan *plan)
{
    int64_t rows = plan->ndim < 2 ? 1 : (int64_t)plan->shape[0];
    return (atomo__fold){.rows = rows, .cols = plan->n / rows};
}

static int rank_of(const atomo__plan *plan, const atomo__fold *f)
{
    return (int)ATOMO_MIN((int64_t)plan->option[RANK], ATOMO_MIN(f->rows, f->cols));
}

/* Scratch memory: P [rank, rows], followed by M scaled [rows, cols], or by Q [rank, cols] and a tile [64, cols]. */
static int plan(atomo__plan *plan)
{
    const atomo__fold f = fold_of(plan);
    const size_t r = (size_t)rank_of(plan, &f), rows = (size_t)f.rows, cols = (size_t)f.cols;
    ATOMO_REQUIRE(f.rows < INT32_MAX && f.cols < INT32_MAX, ATOMO_ELIMIT, "powersgd: tensor %s folds to %.0f x %.0f",
                  plan->name, (double)f.rows, (double)f.cols);
    plan->scratch = sizeof(float) * (r * rows + ATOMO_MAX(rows, r + 64) * cols);
    plan->state_size = sizeof(state) + sizeof(float) * r * cols;
    plan->body_max = 2 + 4 * r * (rows + cols);
    return ATOMO_OK;
}

static int start(atomo__plan *plan)
{
    state *s = plan->state;
    s->fold = fold_of(plan);
    s->rank = rank_of(plan, &s->fold);
    return ATOMO_OK;
}

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* If less than this fraction of a row's length is left, far above f32's rounding of 6e-8, the row depends linearly on
 * the others. */
static const double RANK_NOISE = 1e-5;

/* Orthonormalises the rows of p [r, n] by two passes of modified Gram-Schmidt. A row that depends linearly on the ones
 * before becomes 0, since only rounding noise is left of it. */
static void orthonormalise(float *p, int r, int64_t n)
{
    for (int j = 0; j < r; j++) {
        float *v = p + j * n;
        const double before = sqrt(dot(v, v, n));
        for (int twice = 0; twice < 2; twice++)
            for (int i = 0; i < j; i++) {
                const float along = (float)dot(v, p + i * n, n), *u = p + i * n;
                for (int64_t l = 0; l < n; l++) v[l] -= along * u[l];
            }
        const double left = sqrt(dot(v, v, n)), by = left > RANK_NOISE * before && left > 0 ? 1 / left : 0;
        for (int64_t l = 0; l < n; l++) v[l] = (float)(v[l] * by);
    }
}

/* Prepares the Q to start from: scales the rows of the last one to unit length, and draws random rows if there is none.
 */
static void prepare(const atomo__plan *plan, const atomo__context *c)
{
    state *s = plan->state;
    atomo_stream random = c->stream;
    const bool warm = plan->option[WARM] != 0;
    random.purpose = SEED_PURPOSE;
    random.rank = 0;
    if (warm) random.step = 0;
    for (int j = 0; j < s->rank; j++) {
        float *q = s->q + j * s->fold.cols;
        double length = warm ? sqrt(dot(q, q, s->fold.cols)) : 0;
        if (!(length > 0)) {
            atomo_random_uniform(&random, (double)j * (double)s->fold.cols, (double)s->fold.cols, q);
            for (int64_t i = 0; i < s->fold.cols; i++) q[i] -= 0.5f;
            length = sqrt(dot(q, q, s->fold.cols));
        }
        for (int64_t i = 0; i < s->fold.cols && length > 0; i++) q[i] = (float)(q[i] / length);
    }
}

/* P = M Q, not yet orthonormalised. */
static void product(const state *s, const float *m, float *p)
{
    const int rows = (int)s->fold.rows, cols = (int)s->fold.cols;
    atomo__blas()->sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s->rank, rows, cols, 1, s->q, cols, m, cols, 0, p,
                         rows);
}

/* q = M^T P. */
static void right_factor(const state *s, const float *m, const float *p, float *q)
{
    const int rows = (int)s->fold.rows, cols = (int)s->fold.cols;
    atomo__blas()->sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, s->rank, cols, rows, 1, p, rows, m, cols, 0, q,
                         cols);
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    state *s = plan->state;
    const size_t left = (size_t)s->rank * (size_t)s->fold.rows, right = (size_t)s->rank * (size_t)s->fold.cols;
    float *p = atomo__claim_scratch(c), *scaled = p + left, largest;
    double sum;
    int e = 0;
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
    ATOMO_REQUIRE(plan->square <= 0x1p252, ATOMO_ENONFINITE,
                  "powersgd: gradient of tensor %s: its norm is %g; its approximation may leave the range", plan->name,
                  sqrt(plan->square));
    if (largest > 0) frexpf(largest, &e);
    const int exponent = e > 30 || e < -30 ? -e : 0; /* so that squares do not overflow */
    if (exponent) atomo__fold_gather(&s->fold, g, exponent, scaled);
    prepare(plan, c);
    product(s, exponent ? scaled : g, p);
    orthonormalise(p, s->rank, s->fold.rows);
    right_factor(s, exponent ? scaled : g, p, s->q);
    plan->variance = ATOMO_MAX(0, plan->square - ldexp(dot(s->q, s->q, (int64_t)right), -2 * exponent));
    plan->expected = plan->sent = s->rank;
    const uint16_t code = (uint16_t)(exponent + BIAS);
    uint8_t *out = atomo__put_raw(w, 2 + 4 * (left + right));
    if (!out) return ATOMO_OK;
    memcpy(out, &code, 2);
    memcpy(out + 2, p, 4 * left);
    memcpy(out + 2 + 4 * left, s->q, 4 * right);
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const state *s = plan->state;
    const size_t left = (size_t)s->rank * (size_t)s->fold.rows, right = (size_t)s->rank * (size_t)s->fold.cols;
    float *p = atomo__claim_scratch(c), *q = p + left;
    const uint8_t *in = atomo__get_raw(r, 2 + 4 * (left + right));
    uint16_t code;
    double sum, square;
    float largest;
    if (!in) return ATOMO_EFORMAT;
    memcpy(&code, in, 2);
    memcpy(p, in + 2, 4 * (left + right));
    atomo__measure(p, (int64_t)(left + right), &sum, &square, &largest);
    if (!isfinite(sum) || code < BIAS - 128 || code > BIAS + 150) return ATOMO_EFORMAT;
    const int e = BIAS - code;
    const float down1 = ldexpf(scale, e / 2), down2 = ldexpf(1, e - e / 2);
    for (size_t i = 0; i < left; i++) p[i] *= down1;
    for (size_t i = 0; e != 0 && i < right; i++) q[i] *= down2;
    atomo__fold_rank_add(&s->fold, p, q, s->rank, acc, q + right);
    return ATOMO_OK;
}

/* Returns Q, from which the next step starts. */
static float *memory(const atomo__plan *plan, int64_t *n)
{
    state *s = plan->state;
    *n = plan->option[WARM] != 0 ? s->rank * s->fold.cols : 0;
    return s->q;
}

static int64_t linear_size(const atomo__plan *plan, int round)
{
    const state *s = plan->state;
    return s->rank * (round == 0 ? s->fold.rows : s->fold.cols);
}

static int linear_project(atomo__plan *plan, int round, const float *g, float *before, int ranks, atomo__context *c,
                          float *out)
{
    state *s = plan->state;
    double sum, square;
    float largest;
    (void)ranks;
    if (round == 0) {
        ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
        prepare(plan, c);
        product(s, g, out);
        return ATOMO_OK;
    }
    atomo__measure(before, linear_size(plan, 0), &sum, &square, &largest);
    ATOMO_REQUIRE(isfinite(sum), ATOMO_ENUMERIC, "powersgd: tensor %s: the ranks' gradients leave the range of f32",
                  plan->name);
    orthonormalise(before, s->rank, s->fold.rows);
    right_factor(s, g, before, out);
    plan->variance = ATOMO_MAX(0, plan->square - dot(out, out, linear_size(plan, 1)));
    plan->expected = plan->sent = s->rank;
    return ATOMO_OK;
}

static int linear_expand(const atomo__plan *plan, const float *first, const float *last, int ranks, float scale,
                         atomo__context *c, float *acc)
{
    const state *s = plan->state;
    const int64_t left = linear_size(plan, 0);
    float *p = atomo__claim_scratch(c);
    (void)ranks;
    for (int64_t i = 0; i < left; i++) p[i] = first[i] * scale;
    atomo__fold_rank_add(&s->fold, p, last, s->rank, acc, p + left);
    return ATOMO_OK;
}

/* The next step starts from the sum of all ranks' Q, which is bit-identical on all of them. */
static void linear_settle(atomo__plan *plan, const float *last)
{
    state *s = plan->state;
    memcpy(s->q, last, sizeof(float) * (size_t)linear_size(plan, 1));
}

static const struct atomo__linear linear = {
    .rounds = 2, .size = linear_size, .project = linear_project, .expand = linear_expand, .settle = linear_settle};

const struct atomo_compressor atomo_compressor_powersgd = {
    .name = "powersgd",
    .summary = "low rank by one power iteration from the last step's (biased: use ef=true)",
    .source = "Vogels et al., PowerSGD, NeurIPS 2019",
    .unbiased = false,
    .contracts = true,
    .options = options,
    .stages = {.plan = plan, .start = start, .encode = encode, .decode_add = decode_add},
    .memory = memory,
    .missing = atomo__blas_missing,
    .linear = &linear,
};
