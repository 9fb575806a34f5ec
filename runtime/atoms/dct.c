/* dct.c - cosine atoms (DCT-II): of the flattened tensor, or of squares of its matrix; stage 4 of the path.
 *
 * chunk=64: the tensor as a matrix, out x the rest, is divided into tiles of 64 x 64, with smaller tiles at the edges,
 * so that nothing is padded and there are as many atoms as entries. Each tile has a two-dimensional DCT, as in Peng et
 * al., "DeMo: Decoupled Momentum Optimization", 2024. The transform is orthonormal up to rounding.
 */
#include "atoms/common/transform1d.h"
#include "core/packages.h"

enum { STEP, CHUNK, OPTIONS };

static const struct atomo__option options[] = {
    ATOMO__STEP_OPTION,
    {"chunk", ATOMO_OPTION_INT, 0, 0, 4096, NULL, "side of the squares that are transformed; 0: the flattened tensor"},
    {0}};

static int start(atomo__plan *plan)
{
    const int64_t side = (int64_t)plan->option[CHUNK], whole = plan->n;
    const int64_t rows = side > 0 && plan->ndim > 1 ? (int64_t)plan->shape[0] : 1;
    const int64_t chunk[2] = {side > 0 ? side : whole, side > 0 ? side : whole};
    return atomo__separable_plan(atomo__basis_state(plan), ATOMO__DCT, rows, plan->n / rows, chunk,
                                 plan->codec->scratch, "dct");
}

const struct atomo_atoms atomo_atoms_dct = {
    .name = "dct",
    .summary = "cosines (DCT-II) of the flattened gradient, or of squares of its matrix",
    .source = "Ahmed, Natarajan and Rao, Discrete cosine transform, IEEE Trans. Computers 1974; chunks: Peng et al., "
              "DeMo, 2024",
    .options = options,
    .together = true,
    .stages = {.plan = atomo__separable_size, .start = start, .stop = atomo__separable_stop, ATOMO__BASIS_STAGES},
    .transform = atomo__separable_transform,
    .missing = atomo__fftw_missing,
};
