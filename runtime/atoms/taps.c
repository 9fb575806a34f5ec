/* taps.c - cosines over the taps of each convolution kernel; channels are not transformed; stage 4 of the path.
 *
 * For a pair of channels, the gradient of a convolution's weight [out, kh, kw, in] is the correlation of two images at
 * kh x kw neighbouring shifts. Images are smooth, so neighbouring taps are similar, and the DCT-II over the taps
 * concentrates most of the energy in their mean. docs/compressors.md has measurements. A tensor that is no kernel (not
 * four-dimensional, or 1x1), and an axis of more than 64 taps, is not transformed; such tensors are coded like `entry`.
 * The transform is exact except for rounding, bit-identical on every CPU, and takes 2 (kh + kw) flops per entry.
 */
#include "atoms/common/basis.h"
#include "atoms/common/tap_cosines.h"

static const struct atomo__option options[] = {ATOMO__STEP_OPTION, {0}};

static int plan(atomo__plan *plan)
{
    return atomo__basis_plan(plan, sizeof(atomo__tap_cosines));
}

static int start(atomo__plan *plan)
{
    return atomo__tap_cosines_make(atomo__basis_state(plan), plan->ndim, plan->shape);
}

static void stop(atomo__plan *plan)
{
    atomo__tap_cosines_free(atomo__basis_state(plan));
}

static void transform(const atomo__plan *plan, float *x, bool inverse, float *work)
{
    atomo__tap_cosines_run(atomo__basis_state(plan), plan->n, x, inverse, work);
}

const struct atomo_atoms atomo_atoms_taps = {
    .name = "taps",
    .summary = "cosines over the taps of each convolution kernel; of other tensors single entries",
    .source = "Ahmed, Natarajan and Rao, Discrete cosine transform, IEEE Trans. Computers 1974; docs/compressors.md",
    .options = options,
    .together = true,
    .stages = {.plan = plan, .start = start, .stop = stop, ATOMO__BASIS_STAGES},
    .transform = transform,
};
