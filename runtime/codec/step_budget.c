/* step_budget.c - one budget over the tensors of a step: the T at which their messages, frames included, are expected
 * to take it; stage 5 of the path.
 *
 * Where the price of an atom is fixed (factors of so many bits) this is Algorithm 1 with prices over all tensors at
 * once. Where it depends on how many are drawn (entries: index bits), T is refined until the modelled length is met
 * within 0.2 %.
 */
#include "codec/codec.h"
#include <math.h>

/* Evaluations of the length at most. */
enum { MAX_ROUNDS = 24 };
/* A length has met its target within this share of it; so has that of a family, above a jump that MAX_ROUNDS bridge. */
static const double MET = 0.002, MET_AT_JUMP = 0.01;
/* Of the target, what is left to atoms: whatever other tensors spend (atomo_codec_reserve), whatever frames take. */
static const double LEAST_SHARE = 0.25;
/* Least budget over what empty messages take: below, nothing would ever be sent. */
static const double OVER_EMPTY = 1.1;
/* log length over log T: -1 for one price and no certain atoms; between these whatever secants say. */
static const double STEEPEST = -4, FLATTEST = -0.15;
/* The most that log T moves in a round. */
static const double MOST_MOVE = 3;
/* Factors of T: a step up from a jump; the two sides of one. */
static const double STEP_UP = 1.02, BESIDE = 1.01;
/* A T at which no atom is certain or sent. */
static const double NOTHING_SENT = 1e150;
/* Where exact values alone do not fit: a T, in root mean squares of an entry, from which the length is met downwards.
 */
static const double FINE = 1e-3;

atomo__frame atomo__frame_of(const atomo__plan *p, uint32_t rank, uint32_t step)
{
    return (atomo__frame){
        .codec = p->codec->id, .tensor = (uint32_t)p->tensor, .rank = rank, .step = step, .hash = p->hash};
}

/* Bits that tensors of `entries` entries may take together; 0: the budget is in atoms. */
double atomo__target_bits(const atomo_codec *c, double entries)
{
    if (c->budget_atoms > 0) return 0;
    double own = 4 * entries, dense = own + 4 * c->other_entries;
    double all = c->budget_ratio > 0 ? dense / c->budget_ratio : c->budget_bytes;
    return 8 * ATOMO_MAX(all - c->other_bytes, LEAST_SHARE * all * own / dense);
}

/* What a message takes beyond its priced atoms. */
double atomo__overhead(const atomo__plan *p, uint32_t rank, uint32_t step, double body_bits)
{
    atomo__frame f = atomo__frame_of(p, rank, step);
    return atomo__frame_bits(&f, body_bits) + p->fixed_bits + 8 * (double)atomo__form_bytes(p->codec);
}

/* The paper's budget: s expected atoms in each tensor. */
void atomo__solve_atoms(const atomo_codec *c, atomo__plan *p)
{
    p->T = atomo__budget_atoms(&p->segment, c->budget_atoms);
}

typedef struct {
    atomo_codec *codec;
    atomo__plan **plan;
    int count;
    uint32_t rank, step;
    double target;
    bool fixed_prices; /* set by length_at */
    bool choosing;     /* length_at lets the tensors choose their families, */
    int pick;          /* or this one */
} budget;

/* Expected length of all messages at T, by the model of each atom set. */
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

/* T by Algorithm 1 under the prices as they stand. */
static double solve_tangent(budget *b)
{
    double fixed = 0;
    for (int i = 0; i < b->count; i++) {
        fixed += atomo__overhead(b->plan[i], b->rank, b->step, b->target / b->count);
        b->codec->segment[i] = b->plan[i]->segment;
    }
    return atomo__budget_solve(b->codec->segment, b->count, ATOMO_MAX(b->target - fixed, LEAST_SHARE * b->target), 0);
}

/* The T > 0 at which the modelled length, which falls as T grows, is the target: safeguarded secant in log T. */
static void meet_length(budget *b, double T)
{
    double low = 0, high = INFINITY; /* T too low, too high */
    double slope = -1, last_T = 0, last_length = 0;
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
        double next = T * exp(ATOMO_MAX(-MOST_MOVE, ATOMO_MIN(MOST_MOVE, log(b->target / length) / slope)));
        if (!(next > low && next < high)) next = isinf(high) ? 2 * low : low > 0 ? sqrt(low * high) : high / 8;
        T = next;
    }
}

/* Mean square of an entry: the scale of T where nothing else is known. */
static double energy_of(const budget *b)
{
    double square = 0, entries = 0;
    for (int i = 0; i < b->count; i++) {
        square += b->plan[i]->square;
        entries += (double)b->plan[i]->n;
    }
    return square / entries;
}

/* Variance of all tensors at their T, with the families of one side of a jump (side: 0 or 1). */
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

/* The best family of one tensor that has the budget to itself: each is tried. */
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
        for (int k = 0; k < MAX_ROUNDS && length > (1 + MET) * b->target; k++) /* it stood above a jump */
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

/* At T itself the best family may be one that would lower T, at which it is not the best any more. */
void atomo__choose_again(atomo_codec *c, atomo__plan *p, uint32_t rank, uint32_t step, double T)
{
    budget b = {c, &p, 1, rank, step, 0, true, true, p->pick};
    if (isnan(p->atoms->choose(p, T, p->pick))) b.pick = ATOMO__BEST;
    b.target = length_at(&b, T);
    choose_alone(&b, T);
    p->T = T;
    p->atoms->choose(p, T, p->pick);
}

/* Families, where the tensors have a choice. At a price T^2 of a bit each takes the one of least variance + T^2 bits,
 * and the bits of all fall as T grows: the T that meets the target is the maximum of the dual problem. Where a change
 * of families jumps over the target, the choices on both sides of the jump are brought to the target, and the side of
 * less variance is taken. */
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

/* One T for all tensors. Where prices depend on what is drawn, twice: under the guessed prices, then under those at the
 * solution (they only share the budget out among tensors; the length is met each time). */
void atomo__solve_shared(atomo_codec *c, int count, atomo__plan **plan, uint32_t rank, uint32_t step, double target)
{
    double frames = 0;
    for (int i = 0; i < count; i++)
        frames += atomo__overhead(plan[i], rank, step, target / count) - plan[i]->fixed_bits;
    budget b = {c, plan, count, rank, step, ATOMO_MAX(target, frames + target / 2), true, false, ATOMO__BEST};
    const double last = plan[0]->T;
    b.target = ATOMO_MAX(b.target, OVER_EMPTY * length_at(&b, NOTHING_SENT));
    plan[0]->T = last;
    bool open = false; /* some may still choose */
    for (int i = 0; i < count; i++) open = open || (plan[i]->atoms && plan[i]->atoms->choose && !plan[i]->settled);
    if (open) choose_families(&b);
    double T = solve_tangent(&b), length = length_at(&b, T);
    if (b.fixed_prices) return;
    if (T == 0 && length <= b.target) return;
    if (T == 0) { /* everything would fit but for its exact values */
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
