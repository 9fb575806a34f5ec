/* fourier.c - Fourier atoms: cosines and sines of the flattened tensor, or of its matrix; stage 4 of the path.
 *
 * Wang et al. 2018, section 3 (Fourier bases). A complex coefficient of a real signal is represented by two real atoms,
 * sqrt(2/n) cos and sqrt(2/n) sin, each with its own lambda. So there are n orthonormal atoms for n entries, also for
 * odd lengths; DC and Nyquist have one each. dims=2: products of such atoms along the rows and columns of the matrix,
 * out x the rest.
 */
#include "atoms/common/transform1d.h"
#include "core/packages.h"

enum { STEP, DIMS, ROWS, OPTIONS };

static const struct atomo__option options[] = {
    ATOMO__STEP_OPTION,
    {"dims", ATOMO_OPTION_INT, 1, 1, 2, NULL,
     "1: frequencies of the flattened tensor; 2: of the matrix out x the rest"},
    {"rows", ATOMO_OPTION_INT, 0, 0, 1e9, NULL,
     "with dims=1: rows of the matrix out x the rest that are transformed together; 0: all"},
    {0}};

static int plan(atomo__plan *plan)
{
    ATOMO_REQUIRE(plan->option[DIMS] < 2 || plan->option[ROWS] == 0, ATOMO_EARG,
                  "fourier: rows=%g with dims=2, expected dims=1 or rows=0", plan->option[ROWS]);
    return atomo__separable_size(plan);
}

/* Returns the number of entries that are transformed together: `rows` rows of the matrix, or all. */
static int64_t stretch_of(const atomo__plan *plan)
{
    const int64_t rows = plan->ndim > 1 ? (int64_t)plan->shape[0] : 1;
    const double stretch = plan->option[ROWS] * (double)(plan->n / rows);
    return plan->option[ROWS] > 0 && stretch < (double)plan->n ? (int64_t)stretch : plan->n;
}

static int start(atomo__plan *plan)
{
    const int64_t rows = plan->option[DIMS] > 1 && plan->ndim > 1 ? (int64_t)plan->shape[0] : 1;
    const int64_t chunk[2] = {stretch_of(plan), plan->n};
    return atomo__separable_plan(atomo__basis_state(plan), ATOMO__FOURIER, rows, plan->n / rows, chunk,
                                 plan->codec->scratch, "fourier");
}

const struct atomo_atoms atomo_atoms_fourier = {
    .name = "fourier",
    .summary = "cosines and sines of the flattened gradient, or of its matrix",
    .source = "Wang et al., ATOMO, NeurIPS 2018, section 3",
    .options = options,
    .together = true,
    .stages = {.plan = plan, .start = start, .stop = atomo__separable_stop, ATOMO__BASIS_STAGES},
    .transform = atomo__separable_transform,
    .missing = atomo__fftw_missing,
};
