/* haar.c - Haar wavelet atoms; stage 4 of the path.
 *
 * Haar 1910: (a + b)/sqrt(2) and (a - b)/sqrt(2) of neighbours, then the same for the sums, and so on. The flattened
 * tensor is divided into runs of powers of two by the binary digits of its length, so there are as many atoms as
 * entries. It works in place: after level l the sums are 2^l apart. The transform is exact except for rounding, and
 * bit-identical on every CPU.
 */
#include "atoms/common/basis.h"

static const struct atomo__option options[] = {ATOMO__STEP_OPTION, {0}};

static int plan(atomo__plan *plan)
{
    return atomo__basis_plan(plan, 0);
}

ATOMO_CLONES static void level(float *x, int64_t n, int64_t apart)
{
    const float root = 0.70710678f;
    for (int64_t i = 0; i < n; i += 2 * apart) {
        float a = x[i], b = x[i + apart];
        x[i] = (a + b) * root;
        x[i + apart] = (a - b) * root;
    }
}

static void run(float *x, int64_t size, bool inverse)
{
    if (inverse) {
        for (int64_t apart = size / 2; apart > 0; apart /= 2) level(x, size, apart);
    } else {
        for (int64_t apart = 1; apart < size; apart *= 2) level(x, size, apart);
    }
}

static void transform(const atomo__plan *plan, float *x, bool inverse, float *work)
{
    (void)work;
    atomo__basis_runs(plan, x, inverse, run);
}

const struct atomo_atoms atomo_atoms_haar = {
    .name = "haar",
    .summary = "Haar wavelets of the flattened gradient",
    .source = "Haar, Zur Theorie der orthogonalen Funktionensysteme, Math. Annalen 1910",
    .options = options,
    .together = true,
    .stages = {.plan = plan, ATOMO__BASIS_STAGES},
    .transform = transform,
};
