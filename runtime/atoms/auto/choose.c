/* choose.c - the families of `auto`, and the choice among them at a price; stages 4 and 5 of the path. */
#include "atoms/auto/families.h"
#include "atoms/common/coefficients.h"
#include <math.h>

/* Nanoseconds that a training step takes per entry of the gradient, for comparison with those of coding: about those of
 * ResNet-18 with 35 images, or VGG-11 with 90, on one core. */
static const double NS_AN_ENTRY = 30;
/* Number of rounds to find prices that depend on the number of atoms drawn. */
enum { PRICE_ROUNDS = 3 };

extern const struct atomo_atoms atomo_atoms_entry, atomo_atoms_taps, atomo_atoms_fourier, atomo_atoms_svd,
    atomo_atoms_rotated, atomo_atoms_dense;

const struct auto_family atomo__auto_families[AUTO_FAMILIES] = {
    {"entry:step=0.25", &atomo_atoms_entry, AUTO_ENTRY, {0.25}, 2},
    {"entry:step=1", &atomo_atoms_entry, AUTO_ENTRY, {1}, 8},
    {"taps:step=0.25", &atomo_atoms_taps, AUTO_TAPS, {0.25}, 1},
    {"taps:step=1", &atomo_atoms_taps, AUTO_TAPS, {1}, 4},
    {"fourier:rows=1,step=0.25", &atomo_atoms_fourier, AUTO_FOURIER, {0.25, 1, 1}, 1},
    {"fourier:rows=1,step=1", &atomo_atoms_fourier, AUTO_FOURIER, {1, 1, 1}, 4},
    {"svd", &atomo_atoms_svd, AUTO_SVD, {0, 0, 1}, 32},
    {"dense:bits=8", &atomo_atoms_dense, AUTO_DENSE, {8}, 1},
    {"dense:bits=4", &atomo_atoms_dense, AUTO_DENSE + 1, {4}, 1},
    {"dense:bits=2", &atomo_atoms_dense, AUTO_DENSE + 2, {2}, 1},
    {"rotated", &atomo_atoms_rotated, AUTO_ROTATED, {0, ATOMO__ROTATED_CLASSES}, 1},
};

atomo__plan *atomo__auto_plan(const atomo__plan *plan, int pick)
{
    auto_state *s = plan->state;
    atomo__plan *p = &s->plan[atomo__auto_families[pick].slot];
    p->option = s->option[pick];
    return p;
}

const char *atomo__auto_family(const atomo__plan *plan)
{
    return atomo__auto_families[plan->pick].name;
}

double atomo__auto_saving(const atomo__plan *plan, const atomo__plan *p, double expected)
{
    const int sampling = (int)plan->codec->option[ATOMO__SAMPLING];
    const bool few = p->atoms == &atomo_atoms_svd; /* few, long atoms: sampled systematically by default */
    const bool systematic = sampling == ATOMO__SYSTEMATIC || (few && sampling == ATOMO__SAMPLING_AUTO);
    const double none = systematic ? ATOMO_MAX(0, 1 - expected) : exp(-expected);
    return p->atoms == &atomo_atoms_dense ? 0 : none * (few ? ATOMO__SVD_FIXED_BITS : ATOMO__ENTRIES_HEADER_BITS);
}

void atomo__auto_present(atomo__plan *plan, int pick)
{
    const atomo__plan *p = atomo__auto_plan(plan, pick);
    plan->pick = pick;
    plan->segment = p->segment;
    plan->fixed_bits = AUTO_TAG_BITS + p->fixed_bits;
    plan->square = p->square;
}

/* Returns E||ghat - g||^2 of a measured family at T. */
static double variance_at(const atomo__plan *p, double T)
{
    const atomo__segment *s = &p->segment;
    if (p->atoms == &atomo_atoms_dense) return *(const double *)p->state;
    if (s->curve) {
        atomo__curve_at(s->curve, T);
        return s->curve->error;
    }
    const double t = T * sqrt(s->unit);
    const double step = p->option[0] * t;
    return t > 0 ? atomo__spectrum_noise(s->spectrum, t) + s->kept * step * step / 6 : 0;
}

/* Returns the bits of the message of a measured family at T, with the prices for the number of atoms drawn there. */
static double bits_at(const atomo__plan *plan, atomo__plan *p, double T)
{
    for (int round = 0; round < PRICE_ROUNDS; round++) {
        atomo__budget_evaluate(&p->segment, T);
        atomo__stage_price(p, T);
        if (!p->segment.spectrum || round == PRICE_ROUNDS - 1 || !(T > 0)) break;
        p->segment.unit = p->priced_unit;
        p->fixed_bits = p->priced_fixed;
    }
    return AUTO_TAG_BITS + p->priced_fixed + p->priced_unit * p->segment.expected -
           atomo__auto_saving(plan, p, p->segment.expected);
}

/* Returns the family's variance times `harm`, plus the cost of its coding time as a variance: a relative variance v of
 * the gradient costs a run at most a factor of 1 + v in steps, and coding time costs its fraction of a step. */
static double harm_of(const atomo__plan *plan, int pick, double variance)
{
    const auto_state *s = plan->state;
    const struct auto_family *f = &atomo__auto_families[pick];
    const double energy = plan->codec->energy > 0 ? plan->codec->energy : s->plan[f->slot].square / (double)plan->n;
    return f->harm * variance + atomo__cadence_cost(&s->cadence, f->atoms->name) / NS_AN_ENTRY * energy;
}

/* Returns V + T^2 B of a family, where V is the variance, or with prefer=accuracy harm_of; *harm = V. The family's
 * segment is evaluated at T afterwards. */
static double lagrangian(const atomo__plan *plan, int pick, double T, double *harm)
{
    atomo__plan *p = atomo__auto_plan(plan, pick);
    const double bits = bits_at(plan, p, T), variance = variance_at(p, T);
    *harm = plan->option[AUTO_PREFER] != 0 ? harm_of(plan, pick, variance) : variance;
    return *harm + T * T * bits;
}

double atomo__auto_choose(atomo__plan *plan, double T, int pick)
{
    const auto_state *s = plan->state;
    double harm, least = INFINITY, cost;
    if (plan->settled) pick = plan->pick;
    if (pick >= AUTO_FAMILIES || (pick >= 0 && !s->measured[atomo__auto_families[pick].slot])) return NAN;
    for (int i = 0; pick == ATOMO__BEST && i < AUTO_FAMILIES; i++) {
        if (!s->measured[atomo__auto_families[i].slot]) continue;
        cost = lagrangian(plan, i, T, &harm);
        if (cost < least) {
            least = cost;
            plan->pick = i;
        }
    }
    if (pick == ATOMO__BEST) pick = plan->pick;
    lagrangian(plan, pick, T, &harm);
    atomo__auto_present(plan, pick);
    return harm;
}
