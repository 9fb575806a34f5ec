/* stream.c - the streaming form's budget: how many bits each tensor may take before the later ones are known; stage 5
 * of the path.
 *
 * All tensors of a step should share one price T, which depends on all of them. The last step gives a first value: the
 * T that would have met its budget, and the bits that each tensor would have taken there, its planned bits. As tensors
 * are pushed, their coefficients show how far this step differs (if gradients are 1000 times larger, all of them are),
 * and T is corrected. The rest of the budget is divided in proportion to the planned bits; that is a tensor's quota. If
 * its message at T would leave a band around the quota, the tensor gets a T of its own, at the edge of the band. The
 * band narrows towards the last tensor. So the expected length of a step is its budget whatever came before, and the
 * step is unbiased for any T. A step without information (zero gradients of a rank without images) leaves the planned
 * bits as they are. A tensor without information (an unused branch) keeps most of them: planned by the empty message
 * that it takes, it would get hardly any bits when it is used again, with a variance of many times ||g||^2.
 */
#include "codec/codec.h"
#include <math.h>

/* These constants were chosen so that a step is at most 10 % over its budget, whatever came before
 * (tests/spec/compress/budget_steps_spec.lua). All are fractions, without a unit. */
/* How far a message may be above and below its tensor's quota, at the first tensor; 0 at the last. */
static const double OVER = 0.25, UNDER = 0.75;
/* The weight of the last step's T, against the planned bits of this step's tensors, as a fraction of all planned bits.
 */
static const double PRIOR = 0.02;
/* The fraction of the model's error (bits sent over bits modelled) that is learnt in a step, and bounds of that error.
 */
static const double REAL = 0.25, REAL_LEAST = 0.8, REAL_MOST = 1.25;
/* A step may leave bits unspent if the last tensors cannot use them. Later steps make up for a fraction OWED of that; a
 * step counts with ONCE of its budget at most, and the sum stays within MADE_UP of the budget. */
static const double OWED = 0.05, ONCE = 0.1, MADE_UP = 0.06;
/* A tensor's least quota if the tensors before it have spent everything: an empty message, and this fraction of its
 * other planned bits. An atom's probability falls with that fraction; its variance is 1 / probability. */
static const double LEAST_QUOTA = 0.1;
/* The largest factor, up or down, by which T is corrected if the tensors before have spent too much or too little. */
static const double MOST_BEHIND = 4;
/* The least bits for a tensor's uncertain atoms, and for all atoms of a step, as a fraction of the bits wanted. */
static const double LEAST_REST = 0.1;
/* Bound of |log(T called for / T)|: e^40 is 2e17, more than gradients grow from one step to the next. */
static const double MOST_DRIFT = 40;
/* The least planned_left, as a fraction of the planned bits: keeps it above 0 in a division after the last tensor. */
static const double NOTHING_LEFT = 1e-9;
/* A tensor whose gradient is 0 keeps IDLE_KEPT of its planned bits from step to step, but at least IDLE_LEAST of its
 * share of the budget by number of entries. */
static const double IDLE_KEPT = 0.9, IDLE_LEAST = 0.1;

static double limit(double x, double low, double high)
{
    return ATOMO_MAX(low, ATOMO_MIN(high, x));
}

/* Returns the least bits that a tensor may have (LEAST_QUOTA) if it is to have `bits`. */
static double least_quota(const atomo_codec *c, const atomo__plan *p, double bits)
{
    const double empty = 8 * (atomo__bundle_bytes(p, c->stream.rank, c->stream.step, 1) + 1);
    return ATOMO_MIN(empty, bits) + LEAST_QUOTA * ATOMO_MAX(bits - empty, 0);
}

/* Returns a tensor's share of the budget by number of entries, in bits. */
static double share_by_entries(const atomo_codec *c, const atomo__plan *p)
{
    return c->stream.target * (double)p->n / c->entries;
}

/* Returns a tensor's planned bits; if they are not known yet, its share by number of entries. */
static double planned(const atomo_codec *c, const atomo__plan *p)
{
    return p->planned > 0 ? p->planned : share_by_entries(c, p);
}

/* Returns whether a noted tensor's gradient was 0. */
static bool is_idle(const atomo__plan *p)
{
    return !(p->square > 0);
}

/* Returns the bits that are planned for an idle tensor in the next step. */
static double idle_bits(const atomo_codec *c, const atomo__plan *p)
{
    const double kept = ATOMO_MAX(IDLE_KEPT * planned(c, p), IDLE_LEAST * share_by_entries(c, p));
    return ATOMO_MAX(kept, p->noted_fixed);
}

void atomo__price_begin(atomo_codec *c)
{
    struct atomo__price *s = &c->stream;
    const double target = atomo__has_budget(c) ? atomo__target_bits(c, c->entries) : 0;
    /* if the budget has changed: the bits of uncertain atoms are proportional to 1/T */
    if (target > 0 && s->aimed > 0 && s->T > 0) s->T *= s->aimed / target;
    s->target = s->aimed = target;
    s->sent = s->modelled = s->drift = s->weight = s->planned = 0;
    if (!(target > 0)) return;
    for (int i = 0; i < c->plans; i++)
        if (c->plan[i]) s->planned += planned(c, c->plan[i]);
    s->planned_left = s->planned;
    s->left = target * (1 + s->owed);
    s->scale = s->left / s->planned;
    if (!(s->real > 0)) s->real = 1;
}

/* Returns the modelled bits of the message at the plan's T; `bits`: its approximate length, for the frame. */
static double length_of(const atomo_codec *c, atomo__plan *p, double bits)
{
    atomo__stage_price(p, p->T);
    return atomo__overhead(p, c->stream.rank, c->stream.step, bits) - p->fixed_bits + p->priced_fixed +
           p->priced_unit * p->segment.expected;
}

static void set_price(atomo_codec *c, atomo__plan *p, double T)
{
    p->T = T;
    if (p->searched && !p->settled)
        atomo__choose_again(c, p, c->stream.rank, c->stream.step, T);
    else if (p->atoms->choose)
        p->atoms->choose(p, T, ATOMO__BEST);
    atomo__budget_evaluate(&p->segment, T);
}

void atomo__price_set(atomo_codec *c, atomo__plan *p)
{
    const struct atomo__price *s = &c->stream;
    if (c->budget_atoms > 0) {
        atomo__solve_atoms(c, p);
        return;
    }
    const double bits = planned(c, p), share = ATOMO_MIN(1, bits / s->planned_left);
    const double quota = ATOMO_MAX(s->left * share, least_quota(c, p, bits * s->scale)) / s->real;
    if (s->T > 0) {
        const double behind = limit(s->planned_left * s->scale / ATOMO_MAX(s->left, 1), 1 / MOST_BEHIND, MOST_BEHIND);
        const double most = quota * (1 + OVER * (1 - share)), least = quota * (1 - UNDER * (1 - share));
        set_price(c, p, s->T * exp(s->drift / (s->weight + PRIOR * s->planned)) * behind);
        const double length = length_of(c, p, quota);
        if (length >= least && length <= most) return;
        atomo__solve_shared(c, 1, &p, s->rank, s->step, length > most ? most : least);
    } else {
        atomo__solve_shared(c, 1, &p, s->rank, s->step, quota);
    }
}

/* Returns whether the segment holds the bits of its atoms; else each takes plan->priced_unit. */
static bool prices_its_own(const atomo__segment *g)
{
    return g->cost || g->curve;
}

void atomo__price_note(atomo_codec *c, atomo__plan *p)
{
    struct atomo__price *s = &c->stream;
    if (c->budget_atoms > 0) return;
    const double bits = planned(c, p), wanted = bits * s->scale / s->real, length = length_of(c, p, wanted);
    const atomo__segment *g = &p->segment;
    const double rest = /* bits proportional to 1/T */
        g->curve ? atomo__budget_elastic(g, p->T) : p->priced_unit * (g->expected - g->kept);
    p->noted = true;
    p->noted_fixed = length - (g->curve ? g->kept_cost : g->cost ? g->kept_cost + rest : p->priced_unit * g->expected);
    s->modelled += length;
    s->planned_left = ATOMO_MAX(s->planned_left - bits, NOTHING_LEFT * s->planned);
    if (!(s->T > 0 && p->T > 0 && isfinite(p->T) && rest > 0)) return;
    const double called_for =
        p->T * rest / ATOMO_MAX(wanted - length + rest, LEAST_REST * wanted); /* T at which it takes its planned bits */
    s->drift += bits * limit(log(called_for / s->T), -MOST_DRIFT, MOST_DRIFT);
    s->weight += bits;
}

void atomo__price_sent(atomo_codec *c, double bits)
{
    c->stream.sent += bits;
    c->stream.left -= bits;
}

double atomo__entries_that_came(const atomo_codec *c)
{
    double entries = 0;
    for (int i = 0; i < c->plans; i++)
        if (c->plan[i] && c->plan[i]->noted) entries += (double)c->plan[i]->n;
    return entries;
}

/* Returns the fraction of the budget that belongs to the tensors priced in this step. In topology sharded an owner's
 * codec encodes only some of its tensors, the same ones in every step. */
static double share_of_those_that_came(const atomo_codec *c)
{
    return atomo__entries_that_came(c) / c->entries;
}

/* Returns the T that would have met `target` bits if all of this step's coefficients had been known, by Algorithm 1 at
 * the prices of this step; 0 if all atoms fit. */
static double called_for(atomo_codec *c, double target)
{
    int n = 0;
    double bits = target / c->stream.real;
    for (int i = 0; i < c->plans; i++) {
        const atomo__plan *p = c->plan[i];
        if (!p || !p->noted) continue;
        if (is_idle(p)) {
            bits -= idle_bits(c, p);
            continue;
        }
        c->segment[n] = p->segment;
        if (!prices_its_own(&p->segment)) c->segment[n].unit = p->priced_unit;
        bits -= p->noted_fixed;
        n++;
    }
    return atomo__budget_solve(c->segment, n, ATOMO_MAX(bits, LEAST_REST * target), 0);
}

/* Sets each tensor's planned bits: what it would have taken at T. */
static void plan_at(atomo_codec *c, double T)
{
    int n = 0;
    for (int i = 0; i < c->plans; i++) {
        atomo__plan *p = c->plan[i];
        if (!p || !p->noted) continue;
        if (is_idle(p)) {
            p->planned = idle_bits(c, p);
            continue;
        }
        atomo__segment *g = &c->segment[n++];
        atomo__budget_evaluate(g, T);
        p->planned = p->noted_fixed + (prices_its_own(g) ? g->kept_cost + g->rest_sum / T : g->unit * g->expected);
    }
}

void atomo__price_end(atomo_codec *c)
{
    struct atomo__price *s = &c->stream;
    if (!atomo__has_budget(c) || c->budget_atoms > 0 || !(s->target > 0)) return;
    const double target = s->target * share_of_those_that_came(c), T = target > 0 ? called_for(c, target) : 0;
    if (T > 0 && isfinite(T)) {
        s->T = T;
        s->owed = limit(s->owed + OWED * limit(1 - s->sent / target, -ONCE, ONCE), -MADE_UP, MADE_UP);
        s->real += REAL * (limit(s->sent / s->modelled, REAL_LEAST, REAL_MOST) - s->real);
        plan_at(c, T);
    }
    for (int i = 0; i < c->plans; i++)
        if (c->plan[i]) c->plan[i]->noted = false;
}
