/* svd.c - spectral atoms: rank-one terms of the gradient folded to a matrix; stage 4 of the path. svd/measure.c
 * measures their magnitudes, svd/message.c writes and reads their messages.
 *
 * Wang et al. 2018, section 3, without their SVD (docs/architecture.md): for any orthonormal basis w_1 .. w_k of the
 * short side, G = sum_i w_i (G^T w_i)^T exactly. The terms are orthogonal, and lambda_i = ||G^T w_i||. The basis that
 * minimises sum lambda_i is the eigenvectors of the Gram matrix of the short side (one ssyrk and one ssyevd). Factors
 * are sent in 32, 16, 8, ... bits. w and v = G^T w are rounded stochastically and independently, so E[what vhat^T] = w
 * v^T. The price of an atom is its bits. The budget uses lambda sqrt((1 + e_w)(1 + e_v)), where e is the relative
 * variance of rounding. With bits=0 factors are coded in a random basis instead, as finely as the price allows
 * (svd/rates.c, svd/factors.c).
 *
 * Messages are unbiased up to the orthonormality of w (float rounding), for a basis of any accuracy and age (every=K),
 * because lambda are always those of this gradient. The variance is exact; with 0, 8 and 16 bits it is accurate to 1 %,
 * because lambda are estimated from the Gram matrix.
 */
#include "atoms/common/rotation.h"
#include "atoms/svd/state.h"
#include "core/carve.h"
#include "core/packages.h"
#include <math.h>

enum { FOLD_OUT, FOLD_PAPER };
/* The largest short side: the eigendecomposition takes about k^3 operations and 2 k^2 floats. */
enum { MOST_ATOMS = 32768 };

static const struct atomo__option options[] = {
    {"bits", ATOMO_OPTION_INT, 8, 0, 32, "32|16|8|6|4|3|2|0",
     "bits of a factor's entry on the wire, stochastically rounded; 0: factors in a random basis, as fine as the "
     "budget allows"},
    {"fold", ATOMO_OPTION_ENUM, 0, 0, 1, "out|paper",
     "the matrix: out x the rest, or the paper's pairs of kernels (a,b,k,k) -> (ab/2, 2k^2)"},
    {"every", ATOMO_OPTION_INT, 1, 1, 1e6, NULL,
     "steps that a basis is kept; any basis is exactly unbiased, an old one has more variance"},
    {0}};

static atomo__fold fold_of(const atomo__plan *plan)
{
    double rest = 1;
    for (int i = 1; i < plan->ndim; i++) rest *= plan->shape[i];
    if (plan->custom_rows) return (atomo__fold){.rows = plan->custom_rows, .cols = plan->n / plan->custom_rows};
    if ((int)plan->option[SVD_FOLD] == FOLD_PAPER && plan->ndim == 4) {
        int64_t out = (int64_t)plan->shape[0], in = (int64_t)plan->shape[3];
        int64_t taps = (int64_t)(plan->shape[1] * plan->shape[2]);
        return (atomo__fold){.rows = (out * in + 1) / 2, .cols = 2 * taps, .out = out, .taps = taps, .in = in};
    }
    if (plan->ndim < 2) return (atomo__fold){.rows = 1, .cols = plan->n};
    return (atomo__fold){.rows = (int64_t)plan->shape[0], .cols = (int64_t)rest};
}

/* Returns a state with the fields that follow from the tensor and the options, without arrays. */
static svd_state shape_of(const atomo__plan *plan)
{
    svd_state s = {.fold = fold_of(plan), .bits = (int)plan->option[SVD_BITS]};
    s.tall = s.fold.rows > s.fold.cols;
    s.k = ATOMO_MIN(s.fold.rows, s.fold.cols);
    s.l = ATOMO_MAX(s.fold.rows, s.fold.cols);
    return s;
}

/* Sets the arrays of s to places behind the struct in `block`; with block NULL only returns the size. */
static size_t carve_state(svd_state *s, void *block)
{
    const size_t k = (size_t)s->k;
    atomo__carver c = {.block = block, .size = sizeof *s};
    s->lambda = atomo__carve(&c, k, sizeof(double));
    s->basis = atomo__carve(&c, k * k, sizeof(float));
    return c.size;
}

size_t atomo__svd_scratch(const svd_state *s, void *block, svd_scratch *m)
{
    const size_t k = (size_t)s->k, l = (size_t)s->l, cols = (size_t)s->fold.cols;
    atomo__carver c = {.block = block};
    m->matrix = atomo__carve(&c, (size_t)s->fold.rows * cols, sizeof(float));
    atomo__carver decompose = c, project = c; /* three layouts that share the memory, as only one is used at a time */
    m->longs = atomo__carve(&c, SVD_BLOCK * l, sizeof(float));
    m->shorts = atomo__carve(&c, SVD_BLOCK * k, sizeof(float));
    m->uniforms = atomo__carve(&c, ATOMO_MAX(l, ATOMO__TILE_ROWS * cols), sizeof(float));
    const size_t unit =
        svd_rotates(s) ? (size_t)atomo__rotation_size(ATOMO_MIN(s->l, (int64_t)ATOMO__MOST_ROTATED)) : 0;
    m->unit = atomo__carve(&c, unit, sizeof(float));
    m->index = atomo__carve(&c, unit + 16, sizeof(uint32_t));
    m->lwork = (int)(1 + 6 * k + 2 * k * k); /* as ssyevd requires */
    m->liwork = (int)(3 + 5 * k);
    m->values = atomo__carve(&decompose, k, sizeof(float));
    m->work = atomo__carve(&decompose, (size_t)m->lwork, sizeof(float));
    m->iwork = atomo__carve(&decompose, (size_t)m->liwork, sizeof(int));
    m->squares = atomo__carve(&project, k, sizeof(float));
    m->gram = atomo__carve(&project, k * k, sizeof(float));
    m->product = atomo__carve(&project, k * k, sizeof(float));
    return ATOMO_MAX(c.size, ATOMO_MAX(decompose.size, project.size));
}

static int plan(atomo__plan *plan)
{
    svd_state s = shape_of(plan);
    svd_scratch m;
    ATOMO_REQUIRE(s.l < INT32_MAX && s.k <= MOST_ATOMS, ATOMO_ELIMIT,
                  "svd: tensor %s folds to %.0f x %.0f; at most %d on the short side and 2^31-1 on the long one",
                  plan->name, (double)s.fold.rows, (double)s.fold.cols, (int)MOST_ATOMS);
    const size_t atoms = (size_t)s.k, bits = (size_t)s.bits;
    plan->scratch = atomo__svd_scratch(&s, NULL, &m);
    plan->state_size = carve_state(&s, NULL);
    plan->body_max = svd_rotates(&s) ? svd_rotated_most(&s) : 16 + atoms * (4 + ((size_t)(s.k + s.l) * bits + 7) / 8);
    return ATOMO_OK;
}

static int start(atomo__plan *plan)
{
    svd_state *s = plan->state;
    *s = shape_of(plan);
    carve_state(s, s);
    if (svd_rotates(s)) svd_rates_start(&s->rates, s->k, s->l);
    return ATOMO_OK;
}

const float *atomo__svd_matrix(const svd_state *s, const float *g, const svd_scratch *m)
{
    if (s->fold.taps == 0 && s->exponent == 0) return g;
    atomo__fold_gather(&s->fold, g, s->exponent, m->matrix);
    return m->matrix;
}

void atomo__svd_project(const svd_state *s, const float *matrix, const float *shorts, int count, float *longs)
{
    const int k = (int)s->k, l = (int)s->l;
    atomo__blas()->sgemm(CblasRowMajor, CblasNoTrans, s->tall ? CblasTrans : CblasNoTrans, count, l, k, 1, shorts, k,
                         matrix, s->tall ? k : l, 0, longs, l);
}

double atomo__svd_usual_rounding(int64_t n, int bits)
{
    /* Steps of max/c add (max/c)^2/6 per entry. The largest of n normal draws has 2 log n + 1 times the mean square. */
    const double c = ldexp(1, bits - 1) - 1;
    return bits == 32 ? 0 : (2 * log((double)n) + 1) / (6 * c * c);
}

/* Visits a kept basis. */
static void learnt(atomo__plan *plan, atomo__learnt_copy *copy)
{
    svd_state *s = plan->state;
    const size_t k = (size_t)s->k;
    if (!(plan->option[SVD_EVERY] > 1)) return;
    atomo__learnt_bytes(copy, &s->kept_for, sizeof s->kept_for);
    atomo__learnt_bytes(copy, s->basis, sizeof(float) * k * k);
    for (size_t i = 0; copy->way == ATOMO__COPY_IN && i < k * k; i++) copy->bad |= !isfinite(s->basis[i]);
}

const struct atomo_atoms atomo_atoms_svd = {
    .name = "svd",
    .summary = "singular directions of the gradient folded to a matrix, factors in few bits",
    .source = "Wang et al., ATOMO, NeurIPS 2018, section 3",
    .options = options,
    .stages = {.plan = plan,
               .start = start,
               .measure = atomo__svd_measure,
               .price = atomo__svd_price,
               .encode = atomo__svd_encode,
               .decode_add = atomo__svd_decode_add},
    .learnt = learnt,
    .missing = atomo__blas_missing,
};
