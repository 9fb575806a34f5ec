/* stream.c - the streaming form's budget: what each tensor may take while the others are still to come; stage 5 of the
 * path.
 *
 * One price T serves all tensors of a step, and is not known before the last of them. The last step says what T it
 * called for and what share of the bits each tensor took there: its planned bits. As tensors arrive, this step's drift
 * from them is learnt from their own coefficients (a gradient 1000 times larger is so for all of them), and T moves
 * along. What remains of the budget is shared out in proportion to them; a tensor whose message at T would leave a band
 * around its quota has a T of its own, at the band's edge. The band closes towards the last tensor: so a step keeps to
 * its budget whatever came before, in expectation, and is unbiased for any T. A step that says nothing (a rank without
 * images: zeros) leaves the planned bits as they are.
 */
#include "codec/codec.h"
#include <math.h>

/* Chosen so that a step is at most 10 % over its budget, whatever came before
 * (tests/spec/compress/budget_steps_spec.lua). All are shares, without a unit. */
/* What a message may be above and below its tensor's quota, while others are to come. */
static const double OVER = 0.25, UNDER = 0.75;
/* The weight of the last step's T against what this step's tensors say, of the budget. */
static const double PRIOR = 0.02;
/* How much of the model's error in a step is learnt, and the range of that error (sent over modelled). */
static const double REAL = 0.25, REAL_LEAST = 0.8, REAL_MOST = 1.25;
/* What steps leave over, where later tensors cannot take what earlier ones did not, is made up for slowly: OWED of a
 * step's, of which at most ONCE counts, and MADE_UP of the budget at most. */
static const double OWED = 0.05, ONCE = 0.1, MADE_UP = 0.06;
/* A tensor's least quota, of its planned bits, where those before it took everything. */
static const double LEAST_QUOTA = 0.05;
/* How far T may be moved for what the tensors before took too much or too little, as a factor either way. */
static const double MOST_BEHIND = 4;
/* The least that is left to a tensor's uncertain atoms, and to all atoms of a step, of the bits that are wanted. */
static const double LEAST_REST = 0.1;
/* Bounds of log(T called for / T): e^40 is 2e17, more than gradients grow by from one step to the next. */
static const double MOST_DRIFT = 40;
/* Of the planned bits: what keeps a quotient of rounding errors away from 0 behind the last tensor. */
static const double NOTHING_LEFT = 1e-9;

static double limit(double x, double low, double high)
{
    return ATOMO_MAX(low, ATOMO_MIN(high, x));
}

/* A tensor's planned bits, of which the sum is all there is. */
static double planned(const atomo_codec *c, const atomo__plan *p)
{
    return p->planned > 0 ? p->planned : c->stream.target * (double)p->n / c->entries;
}

void atomo__price_begin(atomo_codec *c)
{
    struct atomo__price *s = &c->stream;
    const double target = atomo__has_budget(c) ? atomo__target_bits(c, c->entries) : 0;
    /* another budget: what is not saturated costs as 1/T */
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

/* Bits of the message at the plan's T, by the model. */
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
    const double quota = ATOMO_MAX(s->left * share, LEAST_QUOTA * bits * s->scale) / s->real;
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

/* Its atoms' bits are in the segment; else they go by priced_unit. */
static bool prices_its_own(const atomo__segment *g)
{
    return g->cost || g->classes;
}

void atomo__price_note(atomo_codec *c, atomo__plan *p)
{
    struct atomo__price *s = &c->stream;
    if (c->budget_atoms > 0) return;
    const double bits = planned(c, p), wanted = bits * s->scale / s->real, length = length_of(c, p, wanted);
    const atomo__segment *g = &p->segment;
    const double rest =
        g->classes ? g->rest_sum / p->T : p->priced_unit * (g->expected - g->kept); /* goes as 1/T, nearly or exactly */
    p->noted = true;
    p->noted_fixed = length - (prices_its_own(g) ? g->kept_cost + rest : p->priced_unit * g->expected);
    s->modelled += length;
    s->planned_left = ATOMO_MAX(s->planned_left - bits, NOTHING_LEFT * s->planned);
    if (!(s->T > 0 && p->T > 0 && isfinite(p->T) && rest > 0)) return;
    const double called_for =
        p->T * rest / ATOMO_MAX(wanted - length + rest, LEAST_REST * wanted); /* T of the planned bits */
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

/* The share of the budget of the tensors that came: a codec may be handed some of its tensors only (an owner's answers
 * in topology sharded), always the same ones. */
static double share_of_those_that_came(const atomo_codec *c)
{
    return atomo__entries_that_came(c) / c->entries;
}

/* The T that would have met `target` bits with all of this step's coefficients at hand, 0 where any would: Algorithm 1
 * over all tensors at the prices that they had. */
static double called_for(atomo_codec *c, double target)
{
    int n = 0;
    double bits = target / c->stream.real;
    for (int i = 0; i < c->plans; i++) {
        const atomo__plan *p = c->plan[i];
        if (!p || !p->noted) continue;
        c->segment[n] = p->segment;
        if (!prices_its_own(&p->segment)) c->segment[n].unit = p->priced_unit;
        bits -= p->noted_fixed;
        n++;
    }
    return atomo__budget_solve(c->segment, n, ATOMO_MAX(bits, LEAST_REST * target), 0);
}

/* What each tensor would have taken at that T. */
static void plan_at(atomo_codec *c, double T)
{
    int n = 0;
    for (int i = 0; i < c->plans; i++) {
        atomo__plan *p = c->plan[i];
        if (!p || !p->noted) continue;
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
