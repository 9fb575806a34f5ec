/* auto_interval.c - when `auto` searches a tensor's families again; stage 4 of the path.
 *
 * A search costs what measuring in every family costs; its gap is the number of steps over which that is 5 % of the
 * coding with the family in use, by a model in nanoseconds of one core. The first searches come sooner, after 2, 16,
 * 128, ... steps, because a run's price and its gradients settle then; so does one after the price relative to the
 * gradient has moved threefold (another budget), or the gradient has changed so that the choice does not suit it. For
 * a run that keeps changing an eighth of the gap lies between searches.
 */
#include "atoms/common/auto_interval.h"
#include "core/core.h"
#include <math.h>
#include <string.h>

enum { LONGEST = 10000, EARLY = 6 };
static const double SHARE = 0.05, MOVED = 3;

atomo__cadence atomo__cadence_of(int64_t n, int64_t short_side, int64_t every)
{
    return (atomo__cadence){.entries = (double)n, .side = (double)short_side, .every = every};
}

/* Gram matrix, eigenvectors, and `projections` of all of them. */
static double spectral_cost(const atomo__cadence *c, double projections)
{
    const double product = 0.022 * c->entries * c->side;
    return 4 * c->entries + product * (0.5 + projections) + 0.2 * c->side * c->side * c->side;
}

double atomo__cadence_cost(const atomo__cadence *c, const char *atoms)
{
    if (strcmp(atoms, "svd") == 0) return spectral_cost(c, 1);
    if (strcmp(atoms, "fourier") == 0) return 4.5 * c->entries; /* half of it to transform back */
    return 1.2 * c->entries;                                    /* taps, entry, dense */
}

static double search_cost(const atomo__cadence *c)
{
    const double others = 8; /* transforms, histograms, roundings */
    return spectral_cost(c, 1) + others * c->entries;
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

int atomo__cadence_early(atomo__cadence *c)
{
    if (c->every > 0) return 0;
    return c->searches < EARLY || c->since >= c->soonest ? count_search(c) : 0;
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
        c->soonest = ATOMO_MAX(8, c->gap / 8);
        if (c->searches < EARLY) c->gap = ATOMO_MIN(c->gap, (int64_t)2 << (3 * (c->searches - 1)));
        c->level = level;
    } else if (level > 0 && isfinite(level) && c->level > 0 && fabs(log(level / c->level)) > log(MOVED)) {
        c->gap = ATOMO_MIN(c->gap, ATOMO_MAX(c->since, c->soonest));
    }
}

void atomo__cadence_learnt(atomo__cadence *c, atomo__walk *w)
{
    double steps[4] = {(double)c->since, (double)c->gap, (double)c->soonest, c->searches};
    atomo__walk_doubles(w, steps, 4);
    atomo__walk_doubles(w, &c->level, 1);
    if (w->way != ATOMO__COPY_IN) return;
    for (int i = 0; i < 4; i++) w->bad |= !(steps[i] >= 0 && steps[i] < 0x1p31);
    if (w->bad) return;
    c->since = (int64_t)steps[0];
    c->gap = (int64_t)steps[1];
    c->soonest = (int64_t)steps[2];
    c->searches = (int)steps[3];
}
