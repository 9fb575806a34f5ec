/* svd.c - spectral atoms: rank-one terms of the gradient folded to a matrix; stage 4 of the path.
 *
 * Wang et al. 2018, section 3, without their SVD (docs/architecture.md): for any orthonormal w_1 .. w_k of the short
 * side, G = sum_i w_i (G^T w_i)^T exactly, the terms are orthogonal and lambda_i = ||G^T w_i||; the w that minimise sum
 * lambda_i are the eigenvectors of the Gram matrix of the short side (one ssyrk and one ssyevd). Factors go as 32, 16,
 * 8, ... bits, w and G^T w rounded stochastically with random numbers of their own, so E[what vhat^T] = w v^T. The
 * price of an atom is its bits; rounding noise weighs its lambda: lambda sqrt((1 + e_w)(1 + e_v)) enters the budget.
 * Promise: unbiased to the orthonormality of w (float rounding), whatever its accuracy as an SVD and its age (every=K):
 * lambda are always this gradient's. The variance is exact, but with 8 and 16 bits to 1 % (lambda are made from the
 * Gram matrix). Where atoms have bits of their own and a basis is new between searches, the rounding of an atom in 5
 * bits or more, and of about the size that the last search found, is that of the last search; others are measured.
 */
#include "atoms/svd.h"
#include <cblas.h>
#include <lapacke.h>
#include <math.h>

enum { BITS, FOLD, EVERY, OPTIONS };
enum { FOLD_OUT, FOLD_PAPER };
static const float LARGEST = 0x1p100f;                   /* an entry, so that lambda w v / p stays a float */
enum { BLOCK = 32 };                                     /* atoms whose long factors are made at a time */
enum { BIAS = 256, EXPONENT_BITS = 9, FIXED_BITS = 24 }; /* fixed: the count, the exponent, the last byte's padding */

static const struct atomo__option options[] = {
    {"bits", ATOMO_OPTION_INT, 8, 2, 32, "32|16|8|6|4|3|2",
     "bits of a factor's entry on the wire, stochastically rounded"},
    {"fold", ATOMO_OPTION_ENUM, 0, 0, 1, "out|paper",
     "the matrix: out x the rest, or the paper's pairs of kernels (a,b,k,k) -> (ab/2, 2k^2)"},
    {"every", ATOMO_OPTION_INT, 1, 1, 1e6, NULL,
     "steps that a basis is kept; any basis is exactly unbiased, an old one has more variance"},
    {0}};

typedef struct {
    atomo__fold fold;
    int64_t k, l; /* short and long side */
    int bits;
    bool tall;         /* rows > cols: w are right vectors */
    int exponent;      /* G was multiplied by 2^exponent to be near 1 */
    bool rough;        /* lambda is an estimate */
    uint32_t kept_for; /* 1 + (step / every) of the basis; 0: there is none */
    size_t lwork;      /* of ssyevd: floats; then liwork ints */
    size_t liwork;
    bool mixed;                 /* each atom has bits of its own */
    bool searched;              /* table is of this gradient */
    double norm, searched_norm; /* ||g||, and that of the gradient of the table */
    double strange;             /* energy in atoms that the last search found of another size, as a share of ||g||^2 */
    /* after the struct: lambda [k] doubles, basis [k, k] (row i is w_i); where mixed: cost [k], table [WIDTHS + 1][k]
     * (lambda by width, the last without rounding) and swell [k] (lambda over that one, at the last search) doubles,
     * width [k] bytes */
} state;

/* Bits that an atom may choose where they are mixed (option bits = 0, inside of auto), by their number in a message. */
enum { WIDTHS = 8, WIDTH_BITS = 3, USUAL = 5 };
static const int widths[WIDTHS] = {12, 8, 7, 6, 5, 4, 3, 2};

static double *lambda_of(const atomo__part *part)
{
    return (double *)((char *)part->state + ((sizeof(state) + 63) & ~(size_t)63));
}

static float *basis_of(const atomo__part *part)
{
    return (float *)(lambda_of(part) + ((const state *)part->state)->k);
}

static double *cost_of(const atomo__part *part)
{
    const state *s = part->state;
    return (double *)(basis_of(part) + ((s->k * s->k + 1) & ~(int64_t)1));
}

static double *table_of(const atomo__part *part)
{
    return cost_of(part) + ((const state *)part->state)->k;
}

static double *swell_of(const atomo__part *part)
{
    return table_of(part) + (WIDTHS + 1) * ((const state *)part->state)->k;
}

static uint8_t *width_of(const atomo__part *part)
{
    return (uint8_t *)(swell_of(part) + ((const state *)part->state)->k);
}

static int bits_of(const atomo__part *part, int64_t i)
{
    const state *s = part->state;
    return s->mixed ? widths[width_of(part)[i]] : s->bits;
}

static double price_of(const state *s, int bits)
{
    return 32.0 + (s->mixed ? WIDTH_BITS : 0) + bits * (double)(s->k + s->l);
}

static atomo__fold fold_of(const atomo__part *part)
{
    double rest = 1;
    for (int i = 1; i < part->ndim; i++) rest *= part->shape[i];
    if (part->custom_rows) return (atomo__fold){.rows = part->custom_rows, .cols = part->n / part->custom_rows};
    if ((int)part->option[FOLD] == FOLD_PAPER && part->ndim == 4) {
        int64_t out = (int64_t)part->shape[0], in = (int64_t)part->shape[3];
        int64_t taps = (int64_t)(part->shape[1] * part->shape[2]);
        return (atomo__fold){.rows = (out * in + 1) / 2, .cols = 2 * taps, .out = out, .taps = taps, .in = in};
    }
    if (part->ndim < 2) return (atomo__fold){.rows = 1, .cols = part->n};
    return (atomo__fold){.rows = (int64_t)part->shape[0], .cols = (int64_t)rest};
}

/* Scratch: [matrix rows*cols (+1 pad)] [long factors BLOCK*l] [short factors BLOCK*k] [uniforms max(l, 64*cols)], with
 * the Gram matrix's workspace of ssyevd over the last three. */
typedef struct {
    float *matrix, *longs, *shorts, *work;
} room;

static room room_of(const state *s, const atomo__coder *c)
{
    room m;
    m.matrix = atomo__room(c);
    m.longs = m.matrix + s->fold.rows * s->fold.cols;
    m.shorts = m.longs + BLOCK * s->l;
    m.work = m.shorts + BLOCK * s->k;
    return m;
}

static int plan(atomo__part *part)
{
    atomo__fold f = fold_of(part);
    int64_t k = ATOMO_MIN(f.rows, f.cols), l = ATOMO_MAX(f.rows, f.cols);
    ATOMO_REQUIRE(l < INT32_MAX && k <= 32768, ATOMO_ELIMIT,
                  "svd: tensor %s folds to %.0f x %.0f; at most 32768 on the short side and 2^31-1 on the long one",
                  part->name, (double)f.rows, (double)f.cols);
    const bool mixed = part->option[BITS] == 0;
    size_t atoms = (size_t)k, bits = mixed ? (size_t)widths[0] : (size_t)part->option[BITS];
    size_t tail = ATOMO_MAX((size_t)BLOCK * (size_t)(l + k) + (size_t)ATOMO_MAX(l, 64 * f.cols),
                            (1 + 7 * atoms + 2 * atoms * atoms) + 3 + 5 * atoms + 16);
    part->scratch = sizeof(float) * ((size_t)f.rows * (size_t)f.cols + tail);
    part->state_size =
        ((sizeof(state) + 63) & ~(size_t)63) + sizeof(double) * atoms + sizeof(float) * (atoms * atoms + 1);
    if (mixed) part->state_size += (sizeof(double) * (3 + WIDTHS) + 1) * atoms;
    part->body_max = 16 + atoms * (4 + mixed + ((size_t)(k + l) * bits + 7) / 8);
    return ATOMO_OK;
}

static int start(atomo__part *part)
{
    state *s = part->state;
    s->fold = fold_of(part);
    s->tall = s->fold.rows > s->fold.cols;
    s->k = ATOMO_MIN(s->fold.rows, s->fold.cols);
    s->l = ATOMO_MAX(s->fold.rows, s->fold.cols);
    s->bits = (int)part->option[BITS];
    s->mixed = s->bits == 0;
    if (s->mixed) memset(width_of(part), USUAL, (size_t)s->k);
    s->lwork = (size_t)(1 + 6 * s->k + 2 * s->k * s->k);
    s->liwork = (size_t)(3 + 5 * s->k);
    return ATOMO_OK;
}

/* The matrix: g itself, or folded and scaled into scratch. */
static const float *matrix_of(const state *s, const float *g, const room *m)
{
    if (s->fold.taps == 0 && s->exponent == 0) return g;
    atomo__fold_gather(&s->fold, g, s->exponent, m->matrix);
    return m->matrix;
}

/* Long factors of `count` short ones: row j of longs = G^T w_j (or G w_j where G is tall). */
static void project(const state *s, const float *g, const float *shorts, int count, float *longs)
{
    const int k = (int)s->k, l = (int)s->l;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, s->tall ? CblasTrans : CblasNoTrans, count, l, k, 1, shorts, k, g,
                s->tall ? k : l, 0, longs, l);
}

/* The eigenvectors of the Gram matrix into basis, as rows. */
static int decompose(atomo__part *part, const float *g, const room *m)
{
    state *s = part->state;
    const int k = (int)s->k, l = (int)s->l;
    float *basis = basis_of(part), *values = m->longs, *work = values + k;
    if (k == 1) {
        basis[0] = 1;
        return ATOMO_OK;
    }
    cblas_ssyrk(CblasRowMajor, CblasUpper, s->tall ? CblasTrans : CblasNoTrans, k, l, 1, g, s->tall ? k : l, 0, basis,
                k);
    /* row-major upper is column-major lower; column j of the result is row j of ours */
    lapack_int info = LAPACKE_ssyevd_work(LAPACK_COL_MAJOR, 'V', 'L', k, basis, k, values, work, (lapack_int)s->lwork,
                                          (lapack_int *)(void *)(work + s->lwork), (lapack_int)s->liwork);
    ATOMO_REQUIRE(info == 0, ATOMO_ENUMERIC,
                  "svd: LAPACK did not converge on tensor %s, folded to %.0f x %.0f (info %d)", part->name,
                  (double)s->fold.rows, (double)s->fold.cols, (int)info);
    for (int i = 0; i < k; i++) { /* never trust info: every w must be finite and of unit length */
        double sum, square;
        float most;
        atomo__measure(basis + (size_t)i * (size_t)k, k, &sum, &square, &most);
        ATOMO_REQUIRE(fabs(square - 1) < 1e-3, ATOMO_ENUMERIC, "svd: eigenvector %d of tensor %s has length %g", i + 1,
                      part->name, sqrt(square));
    }
    return ATOMO_OK;
}

/* Squares must stay in range: gradients far from 1 are brought near it by a power of two, which the message carries. */
static int scale_for(atomo__part *part, float largest)
{
    state *s = part->state;
    int e = 0;
    ATOMO_REQUIRE(largest <= LARGEST, ATOMO_ENONFINITE,
                  "%s: gradient of tensor %s: entries up to %g; rank-one terms of more than 2^100 may leave the range",
                  part->codec->name, part->name, (double)largest);
    if (largest > 0) frexpf(largest, &e);
    s->exponent = e > 30 || e < -30 ? -e : 0;
    return ATOMO_OK;
}

/* E||xhat - x||^2 / ||x||^2 of a vector like normal draws, rounded to `bits`. */
static double usual_rounding(int64_t n, int bits)
{
    const double c = ldexp(1, bits - 1) - 1;
    return bits == 32 ? 0 : (2 * log((double)n) + 1) / (6 * c * c);
}

/* Variance counts weight^2 times in the budget: sizes are multiplied by it. */
static double weight_of(const atomo__part *part)
{
    return part->weight > 0 ? part->weight : 1;
}

/* lambda_i with the share of rounding to `bits`, of one atom: its short factor and its projection. */
static double weigh(const atomo__part *part, const float *shorts, const float *longs, int bits)
{
    const state *s = part->state;
    double square, unit, ev, ew;
    atomo__quant_variance(longs, s->l, bits, &square, &ev);
    atomo__quant_variance(shorts, s->k, bits, &unit, &ew);
    return weight_of(part) * ldexp(sqrt((square + ev) * (unit + ew)), -s->exponent);
}

/* What an atom of size v (rounding included) in `bits` adds to variance + T^2 bits: with price c and p = min(1, v / (T
 * sqrt(c))), v^2/p - lambda^2 to the variance and p c bits, that is 2 T v sqrt(c) below p = 1 and v^2 + T^2 c there,
 * less lambda^2. */
static double cost_at(const state *s, double T, double v, int bits)
{
    const double t = T * sqrt(price_of(s, bits));
    return v < t ? 2 * v * t : v * v + t * t;
}

/* Is an atom of plain size `size` about as large, relative to the gradient, as the last search found it? */
static bool is_familiar(const atomo__part *part, int64_t i, double size)
{
    const state *s = part->state;
    const double then = table_of(part)[WIDTHS * s->k + i] * s->norm / s->searched_norm;
    return size <= 2 * then && then <= 2 * size;
}

/* lambda of atoms first .. first + count - 1. */
static void measure_exactly(const atomo__part *part, const float *matrix, int64_t first, int count, const room *m)
{
    const state *s = part->state;
    const float *basis = basis_of(part) + first * s->k;
    project(s, matrix, basis, count, m->longs);
    for (int j = 0; j < count; j++) {
        const float *shorts = basis + j * s->k, *longs = m->longs + j * s->l;
        const int64_t i = first + j;
        const double plain = s->mixed ? weigh(part, shorts, longs, 32) : 0;
        lambda_of(part)[i] = weigh(part, shorts, longs, bits_of(part, i));
        if (s->mixed) swell_of(part)[i] = plain > 0 ? lambda_of(part)[i] / plain : 1;
    }
}

/* lambda of all atoms, exactly. */
static void measure_all(const atomo__part *part, const float *matrix, const room *m)
{
    const state *s = part->state;
    for (int64_t i = 0; i < s->k; i += BLOCK) {
        int count = (int)ATOMO_MIN((int64_t)BLOCK, s->k - i);
        measure_exactly(part, matrix, i, count, m);
    }
}

/* Whether lambda of atom i must be measured: squares from the Gram matrix lose those of `least` and below in their
 * rounding; and what rounding to few bits adds, or to bits chosen for an atom of another size, is not that of the last
 * search. */
static bool is_uncertain(const atomo__part *part, int64_t i, double lambda, double least)
{
    enum { FEW_BITS = 4 };
    const state *s = part->state;
    if (lambda <= least) return true;
    return s->mixed &&
           (bits_of(part, i) <= FEW_BITS || !is_familiar(part, i, ldexp(lambda * weight_of(part), -s->exponent)));
}

/* lambda from their squares, w^T (G G^T) w, in m->longs; those that squares do not tell are measured. */
static void estimate(const atomo__part *part, const float *matrix, const room *m)
{
    const state *s = part->state;
    double *lambda = lambda_of(part), most = 0;
    const double usual = s->mixed ? 0 : sqrt((1 + usual_rounding(s->l, s->bits)) * (1 + usual_rounding(s->k, s->bits)));
    for (int64_t i = 0; i < s->k; i++) {
        lambda[i] = sqrt(ATOMO_MAX(0, (double)m->longs[i]));
        most = ATOMO_MAX(most, lambda[i]);
    }
    const double least = 0.004 * most;
    for (int64_t i = 0; i < s->k;) {
        int small = 0;
        while (small < BLOCK && i + small < s->k && is_uncertain(part, i + small, lambda[i + small], least)) small++;
        if (small > 0) {
            measure_exactly(part, matrix, i, small, m);
            i += small;
            continue;
        }
        const double noise = s->mixed ? swell_of(part)[i] : usual;
        lambda[i] = ldexp(lambda[i] * noise * weight_of(part), -s->exponent);
        i++;
    }
}

/* Of an earlier step's basis: w_i^T (G G^T) w_i of all atoms into m->longs, without a new basis' eigenvectors. */
static void squares_along(const atomo__part *part, const float *matrix, const room *m)
{
    const state *s = part->state;
    const int k = (int)s->k, l = (int)s->l;
    const size_t n = (size_t)k;
    const float *basis = basis_of(part);
    float *square = m->longs, *gram = square + n, *product = gram + n * n;
    cblas_ssyrk(CblasRowMajor, CblasUpper, s->tall ? CblasTrans : CblasNoTrans, k, l, 1, matrix, s->tall ? k : l, 0,
                gram, k);
    cblas_ssymm(CblasRowMajor, CblasRight, CblasUpper, k, k, 1, gram, k, basis, k, 0, product, k);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++) sum += (double)product[i * n + j] * (double)basis[i * n + j];
        square[i] = (float)sum;
    }
}

/* lambda of this gradient along an earlier step's basis. Nothing of that step's lambda is carried over: what was not
 * there then may be all that there is now. */
static void measure_kept(atomo__part *part, const float *g, const room *m)
{
    state *s = part->state;
    const float *matrix = matrix_of(s, g, m);
    s->searched = false;
    s->rough = s->k > 1 && (s->bits == 8 || s->bits == 16);
    if (!s->rough) {
        measure_all(part, matrix, m);
        return;
    }
    squares_along(part, matrix, m);
    estimate(part, matrix, m);
}

/* A fresh basis and its lambda: exact, or without making all the long factors, which costs twice the Gram matrix: with
 * 8 and 16 bits, where rounding hardly weighs, and with mixed bits, where the last search has measured it. */
static int refresh(atomo__part *part, const float *g, const room *m)
{
    state *s = part->state;
    const float *matrix = matrix_of(s, g, m);
    s->kept_for = 0;
    s->searched = false;
    ATOMO_TRY(decompose(part, matrix, m));
    s->rough = s->k > 1 && (s->bits == 8 || s->bits == 16 || s->mixed);
    if (s->rough) {
        estimate(part, matrix, m);
        return ATOMO_OK;
    }
    measure_all(part, matrix, m);
    return ATOMO_OK;
}

/* The share of the energy in atoms of an unfamiliar size. */
static double strange_share(const atomo__part *part)
{
    const state *s = part->state;
    double all = 0, strange = 0;
    for (int64_t i = 0; i < s->k; i++) {
        const double plain = lambda_of(part)[i] / swell_of(part)[i];
        all += plain * plain;
        if (!is_familiar(part, i, plain)) strange += plain * plain;
    }
    return all > 0 ? strange / all : 0;
}

static uint32_t age_of(const atomo__part *part, const atomo__coder *c)
{
    return 1 + c->stream.step / (uint32_t)part->option[EVERY];
}

static void present(atomo__part *part)
{
    const state *s = part->state;
    double *cost = s->mixed ? cost_of(part) : NULL;
    part->segment = (atomo__segment){.f64 = lambda_of(part), .cost = cost, .n = s->k, .unit = price_of(s, s->bits)};
    if (s->mixed) part->segment.unit = price_of(s, widths[USUAL]);
    for (int64_t i = 0; cost && i < s->k; i++) cost[i] = price_of(s, bits_of(part, i));
    part->fixed_bits = FIXED_BITS;
}

static int measure(atomo__part *part, const float *g, atomo__coder *c)
{
    state *s = part->state;
    double sum;
    float largest;
    atomo__measure(g, part->n, &sum, &part->square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(part, g);
    ATOMO_TRY(scale_for(part, largest));
    s->norm = sqrt(part->square);
    const uint32_t want = age_of(part, c);
    const room m = room_of(s, c);
    if (part->option[EVERY] > 1 && s->kept_for == want) {
        measure_kept(part, g, &m);
    } else {
        ATOMO_TRY(refresh(part, g, &m));
        s->kept_for = want;
    }
    if (s->mixed) s->strange = strange_share(part);
    present(part);
    return ATOMO_OK;
}

int atomo__svd_search(atomo__part *part, const float *g, atomo__coder *c)
{
    state *s = part->state;
    const room m = room_of(s, c);
    double sum;
    float largest;
    atomo__measure(g, part->n, &sum, &part->square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(part, g);
    ATOMO_TRY(scale_for(part, largest));
    const float *matrix = matrix_of(s, g, &m), *basis = basis_of(part);
    double *table = table_of(part);
    s->kept_for = 0;
    ATOMO_TRY(decompose(part, matrix, &m));
    for (int64_t i = 0; i < s->k; i++) {
        const int j = (int)(i % BLOCK);
        if (j == 0) project(s, matrix, basis + i * s->k, (int)ATOMO_MIN((int64_t)BLOCK, s->k - i), m.longs);
        for (int b = 0; b < WIDTHS; b++)
            table[b * s->k + i] = weigh(part, basis + i * s->k, m.longs + j * s->l, widths[b]);
        table[WIDTHS * s->k + i] = weigh(part, basis + i * s->k, m.longs + j * s->l, 32);
    }
    s->rough = false;
    s->searched = true;
    s->norm = s->searched_norm = sqrt(part->square);
    s->strange = 0;
    s->kept_for = age_of(part, c);
    atomo__svd_choose(part, 0);
    return ATOMO_OK;
}

double atomo__svd_strange(const atomo__part *part)
{
    return ((const state *)part->state)->strange;
}

/* The bits of least variance + T^2 bits for each atom. */
void atomo__svd_choose(atomo__part *part, double T)
{
    const state *s = part->state;
    const double *table = table_of(part);
    for (int64_t i = 0; s->searched && i < s->k; i++) {
        double least = INFINITY;
        for (int b = 0; b < WIDTHS; b++) {
            const double v = table[b * s->k + i], cost = cost_at(s, T, v, widths[b]);
            if (!(cost < least)) continue;
            least = cost;
            width_of(part)[i] = (uint8_t)b;
            lambda_of(part)[i] = v;
        }
        const double plain = table[WIDTHS * s->k + i];
        swell_of(part)[i] = plain > 0 ? lambda_of(part)[i] / plain : 1;
    }
    present(part);
}

/* Atoms differ in price: the unit is that of those which are not certain, the rest is fixed. */
static void price(atomo__part *part, double T)
{
    const atomo__segment *g = &part->segment;
    const double free_atoms = g->expected - g->kept, spent = T > 0 ? g->rest_sum / T : 0;
    part->priced_unit = g->unit;
    part->priced_fixed = FIXED_BITS;
    if (!g->cost) return;
    if (free_atoms > 0) part->priced_unit = spent / free_atoms;
    part->priced_fixed += g->kept_cost + spent - part->priced_unit * g->expected;
}

/* Keep-probability of atom i at the part's T. */
static double probability(const atomo__part *part, int64_t i)
{
    const double lambda = part->segment.f64[i];
    double t = part->T * sqrt(part->segment.cost ? part->segment.cost[i] : part->segment.unit);
    return lambda <= 0 ? 0 : lambda >= t ? 1 : lambda / t;
}

/* A block of drawn atoms whose short factors are in m->shorts. */
typedef struct {
    double p[BLOCK];
    int64_t atom[BLOCK];
    int count;
    uint32_t first; /* how many were written before */
} block;

/* Writes a block. Returns E of the squared rounding errors of those with p = 1, where lambda did not tell. */
static double write_block(const atomo__part *part, const float *matrix, const room *m, const block *drawn,
                          const atomo__coder *c, atomo__writer *w)
{
    const state *s = part->state;
    atomo_stream short_stream = c->stream, long_stream = c->stream;
    short_stream.purpose = ATOMO_RNG_QUANT_U;
    long_stream.purpose = ATOMO_RNG_QUANT_V;
    double rounding = 0;
    project(s, matrix, m->shorts, drawn->count, m->longs);
    for (int j = 0; j < drawn->count; j++) {
        const float *shorts = m->shorts + j * s->k, *longs = m->longs + j * s->l;
        const int bits = bits_of(part, drawn->atom[j]);
        const uint32_t number = drawn->first + (uint32_t)j;
        float short_scale = atomo__quant_scale(shorts, s->k, bits), long_scale = atomo__quant_scale(longs, s->l, bits);
        if (s->mixed) atomo__put(w, width_of(part)[drawn->atom[j]], WIDTH_BITS);
        atomo__put_f32(w, (float)ATOMO_MIN((double)short_scale * (double)long_scale / drawn->p[j], 3.4028234e38));
        atomo__quant_write(w, shorts, s->k, bits, short_scale, &short_stream, number, m->work);
        atomo__quant_write(w, longs, s->l, bits, long_scale, &long_stream, number, m->work);
        if (!s->rough || drawn->p[j] < 1) continue;
        double square, unit, ev, ew;
        atomo__quant_variance(longs, s->l, bits, &square, &ev);
        atomo__quant_variance(shorts, s->k, bits, &unit, &ew);
        rounding += ldexp((square + ev) * (unit + ew) - square * unit, -2 * s->exponent);
    }
    return rounding;
}

/* The square of what rounding multiplies an estimated lambda by. */
static double share_of(const atomo__part *part, int64_t i, int bits)
{
    const state *s = part->state;
    if (s->mixed) return swell_of(part)[i] * swell_of(part)[i];
    return (1 + usual_rounding(s->l, bits)) * (1 + usual_rounding(s->k, bits));
}

static int encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w)
{
    state *s = part->state;
    room m = room_of(s, c);
    const double *lambda = lambda_of(part);
    atomo__draw draw = atomo__draw_of(&c->stream, c->fixed_few), again = draw;
    double noisy = 0, sent = 0;
    for (int64_t i = 0; i < s->k; i++) {
        const int bits = bits_of(part, i);
        const double pi = probability(part, i), size = lambda[i] / weight_of(part), square = size * size;
        const double share = share_of(part, i, bits);
        if (pi > 0 && !(s->rough && pi >= 1)) noisy += square / pi - (s->rough ? square / share : 0);
        sent += pi > 0 && atomo__draw_next(&draw, (uint32_t)i, pi);
    }
    part->expected = part->segment.expected;
    part->sent = sent;
    atomo__put_varint(w, (uint32_t)sent);
    atomo__put(w, (uint32_t)(s->exponent + BIAS), EXPONENT_BITS);
    const float *matrix = sent > 0 ? matrix_of(s, g, &m) : NULL;
    block drawn = {.count = 0};
    for (int64_t i = 0; i < s->k; i++) {
        const double pi = probability(part, i);
        if (!(pi > 0 && atomo__draw_next(&again, (uint32_t)i, pi))) continue;
        memcpy(m.shorts + drawn.count * s->k, basis_of(part) + i * s->k, sizeof(float) * (size_t)s->k);
        drawn.p[drawn.count] = pi;
        drawn.atom[drawn.count++] = i;
        if (drawn.count == BLOCK) {
            noisy += write_block(part, matrix, &m, &drawn, c, w);
            drawn.first += BLOCK;
            drawn.count = 0;
        }
    }
    if (drawn.count) noisy += write_block(part, matrix, &m, &drawn, c, w);
    part->variance = ATOMO_MAX(0, noisy - (s->rough ? 0 : part->square));
    return ATOMO_OK;
}

static int decode_add(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc)
{
    const state *s = part->state;
    room m = room_of(s, c);
    uint32_t atoms = atomo__get_varint(r);
    int exponent = BIAS - (int)atomo__get(r, EXPONENT_BITS);
    if (r->bad || atoms > (uint64_t)s->k || exponent < -150 || exponent > 150) return ATOMO_EFORMAT;
    const float long_scale = ldexpf(1, exponent / 2), short_scale = ldexpf(scale, exponent - exponent / 2);
    float *rows = s->tall ? m.longs : m.shorts, *cols = s->tall ? m.shorts : m.longs;
    for (uint32_t at = 0; at < atoms; at += BLOCK) {
        int count = (int)ATOMO_MIN((uint32_t)BLOCK, atoms - at);
        for (int j = 0; j < count; j++) {
            const int bits = s->mixed ? widths[atomo__get(r, WIDTH_BITS)] : s->bits;
            float coefficient = atomo__get_f32(r), *shorts = m.shorts + j * s->k, *longs = m.longs + j * s->l;
            if (!isfinite(coefficient)) return ATOMO_EFORMAT;
            atomo__quant_read(r, shorts, s->k, bits);
            atomo__quant_read(r, longs, s->l, bits);
            if (r->bad) return ATOMO_EFORMAT;
            for (int64_t i = 0; i < s->k; i++) shorts[i] *= coefficient * short_scale;
            for (int64_t i = 0; exponent != 0 && i < s->l; i++) longs[i] *= long_scale;
        }
        atomo__fold_rank_add(&s->fold, rows, cols, count, acc, m.work);
    }
    return ATOMO_OK;
}

/* A kept basis; of the last search the widths, and the sizes that they were chosen for. */
static void learnt(atomo__part *part, atomo__walk *w)
{
    state *s = part->state;
    const size_t k = (size_t)s->k;
    float *basis = basis_of(part);
    if (part->option[EVERY] > 1) {
        atomo__walk_bytes(w, &s->kept_for, sizeof s->kept_for);
        atomo__walk_bytes(w, basis, sizeof(float) * k * k);
    }
    if (s->mixed) {
        atomo__walk_doubles(w, swell_of(part), k);
        atomo__walk_bytes(w, width_of(part), k);
        atomo__walk_doubles(w, table_of(part) + WIDTHS * k, k);
        atomo__walk_doubles(w, &s->searched_norm, 1);
        atomo__walk_doubles(w, &s->norm, 1);
        atomo__walk_doubles(w, &s->strange, 1);
    }
    if (w->way != ATOMO__COPY_IN) return;
    for (size_t i = 0; part->option[EVERY] > 1 && i < k * k; i++) w->bad |= !isfinite(basis[i]);
    for (size_t i = 0; s->mixed && i < k; i++) w->bad |= width_of(part)[i] >= WIDTHS;
}

const struct atomo_atoms atomo_atoms_svd = {
    .name = "svd",
    .summary = "singular directions of the gradient folded to a matrix, factors in few bits",
    .source = "Wang et al., ATOMO, NeurIPS 2018, section 3",
    .options = options,
    .plan = plan,
    .start = start,
    .measure = measure,
    .price = price,
    .encode = encode,
    .decode_add = decode_add,
    .learnt = learnt,
};
