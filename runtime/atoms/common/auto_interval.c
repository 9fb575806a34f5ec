/* auto_interval.c - the number of steps between `auto`'s searches for the best family of a tensor; stage 4 of the path.
 *
 * A search takes the time of measuring in every family. Its gap, the number of steps to the next one, is chosen so that
 * searches take 5 % of the time of coding with the chosen family, by a model in nanoseconds of one core. The first
 * searches come earlier, after 2, 16, 128, ... steps, because the price and the gradients of a run settle then. A
 * search also comes earlier if the price relative to the gradient has changed threefold (as with another budget). In a
 * run that keeps changing, there is at least an eighth of the gap between searches.
 */
#include "atoms/common/auto_interval.h"
#include "core/core.h"
#include <math.h>
#include <string.h>

enum { LONGEST = 10000 };         /* the largest gap, in steps */
enum { EARLY = 6 };               /* this many searches come at the early steps 2, 16, 128, ... */
enum { SOONEST = 8 };             /* the least gap in steps, and the largest divisor of the gap */
static const double SHARE = 0.05; /* the fraction of coding time for searches, as option every=0 documents */
static const double MOVED = 3;    /* a change of the price by this factor calls for a search */

/* The model, in nanoseconds of one core of an AMD EPYC (Zen 4 or 5, AVX2 kernels of OpenBLAS 0.3.21), for n entries and
 * a short side of k. Searches depend on it, and messages on searches, so it must not be adapted to a machine. */
static const double NS_MULTIPLY_ADD = 0.022; /* sgemm at 93 GFLOP/s */
static const double NS_EIGENVECTORS = 0.2;   /* times k^3: ssyevd */
static const double NS_SPECTRAL_ENTRY = 4;   /* times n: quantisers, draws, writing */
static const double NS_FOURIER_ENTRY = 4.5;  /* times n: half of it to transform back */
static const double NS_PLAIN_ENTRY = 1.2;    /* times n: taps, entry, dense */
static const double NS_ROTATED_ENTRY = 2.4;  /* times n: butterflies, both ways */
static const double NS_OTHER_FAMILIES = 8;   /* times n, in a search: transforms, histograms, roundings */

atomo__cadence atomo__cadence_of(int64_t n, int64_t short_side, int64_t every)
{
    return (atomo__cadence){.entries = (double)n, .side = (double)short_side, .every = every};
}

/* Returns the cost of the Gram matrix, the eigenvectors, and `projections` products with all of them. */
static double spectral_cost(const atomo__cadence *c, double projections)
{
    const double product = NS_MULTIPLY_ADD * c->entries * c->side, gram = 0.5; /* half of a product: it is symmetric */
    return NS_SPECTRAL_ENTRY * c->entries + product * (gram + projections) +
           NS_EIGENVECTORS * c->side * c->side * c->side;
}

double atomo__cadence_cost(const atomo__cadence *c, const char *atoms)
{
    if (strcmp(atoms, "svd") == 0) return spectral_cost(c, 1);
    if (strcmp(atoms, "fourier") == 0) return NS_FOURIER_ENTRY * c->entries;
    if (strcmp(atoms, "rotated") == 0) return NS_ROTATED_ENTRY * c->entries;
    return NS_PLAIN_ENTRY * c->entries;
}

static double search_cost(const atomo__cadence *c)
{
    return spectral_cost(c, 1) + NS_OTHER_FAMILIES * c->entries;
}

static int count_search(atomo__cadence *c)
{
    c->searches++;
    c->since = 0;
    c->level = 0;
    return 1;
}

int atomo__cadence_due(atomo__cadence *c)
{
    return c->searches == 0 || c->since >= c->gap ? count_search(c) : 0;
}

void atomo__cadence_step(atomo__cadence *c, const char *atoms, double level)
{
    c->since++;
    if (c->every > 0) {
        c->gap = c->every;
        return;
    }
    if (c->since == 1) {
        const double gap = ceil(search_cost(c) / (SHARE * atomo__cadence_cost(c, atoms)));
        c->gap = (int64_t)ATOMO_MAX(1, ATOMO_MIN(gap, LONGEST));
        c->soonest = ATOMO_MAX(SOONEST, c->gap / SOONEST);
        if (c->searches < EARLY) c->gap = ATOMO_MIN(c->gap, (int64_t)2 << (3 * (c->searches - 1)));
        c->level = level;
    } else if (level > 0 && isfinite(level) && c->level > 0 && fabs(log(level / c->level)) > log(MOVED)) {
        c->gap = ATOMO_MIN(c->gap, ATOMO_MAX(c->since, c->soonest));
    }
}

void atomo__cadence_learnt(atomo__cadence *c, atomo__learnt_copy *copy)
{
    double steps[4] = {(double)c->since, (double)c->gap, (double)c->soonest, c->searches};
    atomo__learnt_doubles(copy, steps, 4);
    atomo__learnt_doubles(copy, &c->level, 1);
    if (copy->way != ATOMO__COPY_IN) return;
    for (int i = 0; i < 4; i++) copy->bad |= !(steps[i] >= 0 && steps[i] < 0x1p31);
    if (copy->bad) return;
    c->since = (int64_t)steps[0];
    c->gap = (int64_t)steps[1];
    c->soonest = (int64_t)steps[2];
    c->searches = (int)steps[3];
}
