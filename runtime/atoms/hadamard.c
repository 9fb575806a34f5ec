/* hadamard.c - Walsh-Hadamard atoms, whose entries are +-1/sqrt(n); stage 4 of the path.
 *
 * The flattened tensor is divided into runs of powers of two by the binary digits of its length (such as 2^16 + 2^4 +
 * 1). Each run is transformed by butterflies (Fino and Algazi, "Unified matrix treatment of the fast Walsh-Hadamard
 * transform", 1976). So there are as many atoms as entries, whereas padding with zeros could double their number. The
 * transform is its own inverse, exact except for rounding, and bit-identical on every CPU.
 */
#include "atoms/common/basis.h"
#include "atoms/common/rotation.h"
#include <math.h>

static const struct atomo__option options[] = {ATOMO__STEP_OPTION, {0}};

static int plan(atomo__plan *plan)
{
    return atomo__basis_plan(plan, 0);
}

ATOMO_CLONES static void multiply(float *x, int64_t n, float by)
{
    for (int64_t i = 0; i < n; i++) x[i] *= by;
}

static void run(float *x, int64_t size, bool inverse)
{
    (void)inverse; /* is the same */
    atomo__walsh(x, size);
    multiply(x, size, (float)sqrt(1 / (double)size));
}

static void transform(const atomo__plan *plan, float *x, bool inverse, float *work)
{
    (void)work;
    atomo__basis_runs(plan, x, inverse, run);
}

const struct atomo_atoms atomo_atoms_hadamard = {
    .name = "hadamard",
    .summary = "Walsh functions: sums of all entries with signs",
    .source = "Suresh et al., Distributed mean estimation with limited communication, ICML 2017 (as a rotation)",
    .options = options,
    .together = true,
    .stages = {.plan = plan, ATOMO__BASIS_STAGES},
    .transform = transform,
};
