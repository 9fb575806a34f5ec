/* step_budget.c - one budget over the tensors of a step: finds the T at which the expected length of their messages,
 * frames included, is the budget; stage 5 of the path.
 *
 * If the price of an atom is fixed (such as factors of N bits) this is Algorithm 1 with prices, over all tensors at
 * once. If it depends on how many atoms are drawn (index bits of entries), T is refined until the modelled length is
 * within 0.2 % of the budget.
 */
#include "codec/codec.h"
#include <math.h>

/* The most evaluations of the length in one search. */
enum { MAX_ROUNDS = 24 };
/* MET: a length within this fraction of the target has met it. MET_AT_JUMP: a family's length may exceed the target by
 * this fraction, because the length can jump over the target as T changes. */
static const double MET = 0.002, MET_AT_JUMP = 0.01;
/* The least fraction of the target for atoms, however much other tensors (atomo_codec_reserve) and frames take. */
static const double LEAST_SHARE = 0.25;
/* The least budget, as a multiple of the length of empty messages. With less, no atom would ever be sent. */
static const double OVER_EMPTY = 1.1;
/* Bounds of the secant's slope d(log length) / d(log T). It is -1 for one price and no certain atoms. */
static const double STEEPEST = -4, FLATTEST = -0.15;
/* The most that log T changes in a round. */
static const double MOST_MOVE = 3;
/* Factors of T: STEP_UP to get from above a jump in length to below it; BESIDE to look at both sides of a jump. */
static const double STEP_UP = 1.02, BESIDE = 1.01;
/* The length of rotated atoms (sampling/gaussian.c) changes in steps, from one quantiser to the next. The search for T
 * ends when the ratio of its bounds is below this: no T between them gives a length nearer to the target. */
static const double ONE_STEP = 1.003;
/* A T so large that no atom is certain or expected to be sent. */
static const double NOTHING_SENT = 1e150;
/* The T to start from, as a multiple of the entries' root mean square, if all atoms fit but their exact values do not.
 */
static const double FINE = 1e-3;

atomo__frame atomo__frame_of(const atomo__plan *p, uint32_t rank, uint32_t step)
{
    return (atomo__frame){
        .codec = p->codec->id, .tensor = (uint32_t)p->tensor, .rank = rank, .step = step, .hash = p->hash};
}

double atomo__target_bits(const atomo_codec *c, double entries)
{
    if (c->budget_atoms > 0) return 0;
    double own = 4 * entries, dense = own + 4 * c->other_entries;
    double all = c->budget_ratio > 0 ? dense / c->budget_ratio : c->budget_bytes;
    return 8 * ATOMO_MAX(all - c->other_bytes, LEAST_SHARE * all * own / dense);
}

double atomo__overhead(const atomo__plan *p, uint32_t rank, uint32_t step, double body_bits)
{
    const double frame = 8 * atomo__bundle_bytes(p, rank, step, floor((body_bits + 7) / 8));
    return frame + p->fixed_bits + 8 * (double)atomo__form_bytes(p->codec);
}

/* The budget of the paper: s expected atoms in each tensor. */
void atomo__solve_atoms(const atomo_codec *c, atomo__plan *p)
{
    p->T = atomo__budget_atoms(&p->segment, c->budget_atoms);
}

typedef struct {
    atomo_codec *codec;
    atomo__plan **plan;
    int count;
    uint32_t rank, step;
    double target;     /* bits */
    bool fixed_prices; /* set by length_at: no price depends on T */
    bool choosing;     /* length_at chooses the family of each tensor that can choose */
    int pick;          /* the family for length_at to choose; ATOMO__BEST: the best at T */
} budget;

/* Returns the expected length of all messages at T in bits, by the model of each atom set. Sets each plan's T. */
static double length_at(budget *b, double T)
{
    double length = 0;
    b->fixed_prices = true;
    for (int i = 0; i < b->count; i++) {
        atomo__plan *p = b->plan[i];
        p->T = T;
        if (b->choosing && p->atoms->choose) p->atoms->choose(p, T, b->pick);
        atomo__budget_evaluate(&p->segment, T);
        atomo__stage_price(p, T);
        b->fixed_prices = b->fixed_prices && p->priced_unit == p->segment.unit && p->priced_fixed == p->fixed_bits;
        length += atomo__overhead(p, b->rank, b->step, b->target / b->count) - p->fixed_bits + p->priced_fixed +
                  p->priced_unit * p->segment.expected;
    }
    return length;
}

/* Returns T by Algorithm 1 for the current prices of atoms. */
static double solve_tangent(budget *b)
{
    double fixed = 0;
    for (int i = 0; i < b->count; i++) {
        fixed += atomo__overhead(b->plan[i], b->rank, b->step, b->target / b->count);
        b->codec->segment[i] = b->plan[i]->segment;
    }
    return atomo__budget_solve(b->codec->segment, b->count, ATOMO_MAX(b->target - fixed, LEAST_SHARE * b->target), 0);
}

/* Returns whether a tensor's length changes in steps. */
static bool goes_in_steps(const budget *b)
{
    for (int i = 0; i < b->count; i++)
        if (b->plan[i]->segment.curve) return true;
    return false;
}

/* Returns the mean square of an entry over all tensors. */
static double energy_of(const budget *b)
{
    double square = 0, entries = 0;
    for (int i = 0; i < b->count; i++) {
        square += b->plan[i]->square;
        entries += (double)b->plan[i]->n;
    }
    return square / entries;
}

/* Finds the T > 0 at which the modelled length is the target, starting from T, by a safeguarded secant method in log T.
 * The length falls as T grows. Where it jumps over the target, the side below is taken. Each plan's T is set to the
 * result. */
static void meet_length(budget *b, double T)
{
    double low = 0, high = INFINITY; /* the largest T found too low, the smallest found too high */
    double slope = -1, last_T = 0, last_length = 0;
    const bool steps = goes_in_steps(b);
    if (!(T > 0 && isfinite(T))) T = sqrt(energy_of(b));
    if (!(T > 0)) T = 1;
    for (int k = 0; k < MAX_ROUNDS; k++) {
        double length = length_at(b, T);
        if (fabs(length - b->target) <= MET * b->target) return;
        if (length > b->target)
            low = T;
        else
            high = T;
        if (last_T > 0 && length != last_length && T != last_T)
            slope = ATOMO_MAX(STEEPEST, ATOMO_MIN(FLATTEST, log(length / last_length) / log(T / last_T)));
        last_T = T;
        last_length = length;
        if (steps && high < low * ONE_STEP) break;
        double next = T * exp(ATOMO_MAX(-MOST_MOVE, ATOMO_MIN(MOST_MOVE, log(b->target / length) / slope)));
        if (!(next > low && next < high)) next = isinf(high) ? 2 * low : low > 0 ? sqrt(low * high) : high / 8;
        T = next;
    }
    if (last_length > (1 + MET_AT_JUMP) * b->target && isfinite(high)) length_at(b, high);
}

/* Chooses the families of one side of a jump (side: 0 or 1), meets the target with them, and returns the variance of
 * all tensors that choose. */
static double meet_side(budget *b, int side, double T)
{
    double variance = 0;
    for (int i = 0; i < b->count; i++)
        if (b->plan[i]->atoms->choose) b->plan[i]->atoms->choose(b->plan[i], T, b->plan[i]->side[side]);
    meet_length(b, T);
    for (int i = 0; i < b->count; i++) {
        atomo__plan *p = b->plan[i];
        if (p->atoms->choose) variance += p->atoms->choose(p, p->T, p->pick);
    }
    return variance;
}

/* Chooses the best family of one tensor that has a budget of its own, by trying each at the target. */
static void choose_alone(budget *b, double T)
{
    atomo__plan *p = b->plan[0];
    double least = INFINITY, best_T = T, variance;
    int best = p->pick;
    for (int pick = 0; pick < ATOMO__MAX_FAMILIES; pick++) {
        if (isnan(p->atoms->choose(p, T, pick))) continue;
        b->pick = pick;
        meet_length(b, T);
        double length = length_at(b, p->T);
        for (int k = 0; k < MAX_ROUNDS && length > (1 + MET) * b->target; k++) /* from above a jump to below it */
            length = length_at(b, STEP_UP * p->T);
        variance = p->atoms->choose(p, p->T, pick);
        if (length <= (1 + MET_AT_JUMP) * b->target && variance < least) {
            least = variance;
            best = pick;
            best_T = p->T;
        }
    }
    b->pick = ATOMO__BEST;
    p->atoms->choose(p, best_T, best);
}

/* The families are compared at equal length. The best one at a fixed T may be shorter, so that the budget would lower
 * T, and then another may be better. */
void atomo__choose_again(atomo_codec *c, atomo__plan *p, uint32_t rank, uint32_t step, double T)
{
    budget b = {c, &p, 1, rank, step, 0, true, true, p->pick};
    if (isnan(p->atoms->choose(p, T, p->pick))) b.pick = ATOMO__BEST;
    b.target = length_at(&b, T);
    choose_alone(&b, T);
    p->T = T;
    p->atoms->choose(p, T, p->pick);
}

/* Chooses the families of all tensors that can choose. At a price of T^2 per bit each tensor takes the family of least
 * variance + T^2 bits. The bits of all tensors fall as T grows, and the T that meets the target maximises the dual
 * problem. If the length jumps over the target where families change, the target is met with the families of each side
 * of the jump, and the side of less variance is kept. */
static void choose_families(budget *b)
{
    double energy = 0, last = b->plan[0]->T;
    for (int i = 0; i < b->count; i++) energy += b->plan[i]->square;
    double T = last > 0 && isfinite(last) ? last : energy > 0 ? sqrt(energy / b->target) : 1;
    b->choosing = true;
    const bool all = length_at(b, 0) <= b->target;
    if (!all && b->count > 1) meet_length(b, T);
    if (!all && b->count == 1) choose_alone(b, T);
    b->choosing = false;
    if (all || b->count == 1) return;
    bool jump = false;
    T = b->plan[0]->T;
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < b->count; i++) {
            atomo__plan *p = b->plan[i];
            if (!p->atoms->choose) continue;
            p->atoms->choose(p, side ? T * BESIDE : T / BESIDE, ATOMO__BEST);
            p->side[side] = p->pick;
            jump = jump || (side == 1 && p->side[0] != p->pick);
        }
    if (!jump) return;
    double low = meet_side(b, 0, T), high = meet_side(b, 1, T);
    if (low < high) meet_side(b, 0, T);
}

/* Finds one T for all tensors. If prices depend on how many atoms are drawn, it is solved twice: with the guessed
 * prices, then with those at the solution. Prices affect only the division of the budget among tensors; the length is
 * met both times. */
void atomo__solve_shared(atomo_codec *c, int count, atomo__plan **plan, uint32_t rank, uint32_t step, double target)
{
    double frames = 0;
    for (int i = 0; i < count; i++)
        frames += atomo__overhead(plan[i], rank, step, target / count) - plan[i]->fixed_bits;
    budget b = {c, plan, count, rank, step, ATOMO_MAX(target, frames + target / 2), true, false, ATOMO__BEST};
    const double last = plan[0]->T;
    b.target = ATOMO_MAX(b.target, OVER_EMPTY * length_at(&b, NOTHING_SENT));
    plan[0]->T = last;
    bool open = false; /* a tensor may still choose its family */
    for (int i = 0; i < count; i++) open = open || (plan[i]->atoms && plan[i]->atoms->choose && !plan[i]->settled);
    if (open) choose_families(&b);
    double T = solve_tangent(&b), length = length_at(&b, T);
    if (b.fixed_prices) return;
    if (T == 0 && length <= b.target) return;
    if (T == 0) { /* all atoms fit at the guessed price, but not with exact values */
        for (int i = 0; i < count; i++) plan[i]->segment.unit = ATOMO_MAX(plan[i]->segment.unit, 32);
        T = solve_tangent(&b);
        if (T == 0) T = FINE * sqrt(energy_of(&b));
    }
    meet_length(&b, T);
    if (count == 1) return;
    T = plan[0]->T;
    for (int i = 0; i < count; i++) {
        plan[i]->segment.unit = plan[i]->priced_unit;
        plan[i]->fixed_bits = plan[i]->priced_fixed;
    }
    meet_length(&b, T);
}
