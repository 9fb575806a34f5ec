/* auto.c - chooses the best family of atoms for each tensor: entry, taps, fourier by rows, svd, rotated, all entries in
 * few bits; stages 4 to 6 and 8 of the path.
 *
 * Wang et al. 2018 leave the decomposition to the user. For a family f, the variance V_f(T) and the message's bits
 * B_f(T) of Algorithm 1 at a price of T^2 per bit have closed forms in its coefficients. So the best family at a price
 * is the one of least V + T^2 B. The price is the one at which the chosen messages meet the budget
 * (codec/step_budget.c). A message names its family in 4 bits; without atoms it has only these 4 bits. It is unbiased,
 * because every family is unbiased and the choice does not depend on random numbers. The variance is the closed form of
 * the chosen family.
 *
 * A search measures the tensor in all families. Between searches (atoms/common/auto_interval.h) only the chosen family
 * is measured.
 */
#include "atoms/auto/families.h"
#include "atoms/common/basis.h"
#include "core/carve.h"
#include "core/packages.h"
#include <math.h>

/* The largest short side for svd: the eigendecomposition of thousands takes seconds. */
enum { MAX_SHORT_SIDE = 1024 };

static const struct atomo__option options[] = {
    {"every", ATOMO_OPTION_INT, 0, 0, 1e9, NULL,
     "steps between searches for the best family of a tensor; 0: as often as costs 5 % of the encoding"},
    {"keep", ATOMO_OPTION_INT, 1, 1, 1e6, NULL, "steps that a spectral basis is kept (svd's every)"},
    {"prefer", ATOMO_OPTION_ENUM, 0, 0, 1, "variance|accuracy",
     "choose the family of least variance; or, for accuracy (the default in training), of least variance times 2 for "
     "entries and 32 for svd, plus coding time: a nanosecond per entry as 1/30 of the gradient's square"},
    {0}};

static const struct auto_family *first_of(int slot)
{
    const struct auto_family *f = atomo__auto_families;
    while (f->slot != slot) f++;
    return f;
}

/* Returns a slot's plan: the tensor's shape, with the options of the slot's first family, written to option [3]. */
static atomo__plan slot_plan(const atomo__plan *plan, int slot, double *option)
{
    atomo__plan p = {.codec = plan->codec, .tensor = plan->tensor, .ndim = plan->ndim, .n = plan->n};
    const struct auto_family *f = first_of(slot);
    memcpy(p.name, plan->name, sizeof p.name);
    memcpy(p.shape, plan->shape, sizeof p.shape);
    memcpy(option, f->option, sizeof f->option);
    if (slot == AUTO_SVD) option[2] = plan->option[AUTO_KEEP];
    p.custom_rows = plan->custom_rows;
    p.atoms = f->atoms;
    p.stages = &f->atoms->stages;
    p.weight = plan->option[AUTO_PREFER] != 0 ? sqrt(f->harm) : 1;
    p.option = option;
    return p;
}

static int64_t short_side(const atomo__plan *plan)
{
    int64_t rows = plan->custom_rows ? plan->custom_rows : plan->ndim > 1 ? (int64_t)plan->shape[0] : 1;
    return ATOMO_MIN(rows, plan->n / rows);
}

/* Returns whether a slot is used for this tensor: taps only for kernels of several taps (else they would equal entry),
 * svd only up to MAX_SHORT_SIDE, fourier only if the build has FFTW. */
static bool is_there(const atomo__plan *plan, int slot)
{
    if (slot == AUTO_TAPS) return plan->ndim == 4 && plan->shape[1] * plan->shape[2] > 1;
    if (slot == AUTO_FOURIER) return !atomo__fftw_is_left_out();
    if (slot == AUTO_ROTATED) return plan->n >= ATOMO__LEAST_ROTATED;
    return slot != AUTO_SVD || short_side(plan) <= MAX_SHORT_SIDE;
}

/* Returns the text about a missing library, "" if none is. A build without FFTW has no family fourier; other builds
 * need FFTW. */
static const char *missing(void)
{
    const char *blas = atomo__blas_missing();
    return *blas || atomo__fftw_is_left_out() ? blas : atomo__fftw_missing();
}

static int plan(atomo__plan *plan)
{
    if (atomo__fftw_is_left_out()) plan->variant = "without fourier";
    plan->state_size = atomo__round_up(sizeof(auto_state));
    for (int i = 0; i < AUTO_SLOTS; i++) {
        double option[3];
        atomo__plan p = slot_plan(plan, i, option);
        if (!is_there(plan, i)) continue;
        ATOMO_TRY(p.stages->plan(&p));
        plan->body_max = ATOMO_MAX(plan->body_max, p.body_max + 1);
        plan->scratch = ATOMO_MAX(plan->scratch, p.scratch);
        plan->state_size += atomo__round_up(p.state_size);
    }
    return ATOMO_OK;
}

static int start(atomo__plan *plan)
{
    auto_state *s = plan->state;
    char *room = (char *)plan->state + atomo__round_up(sizeof(auto_state));
    for (int i = 0; i < AUTO_FAMILIES; i++)
        memcpy(s->option[i], atomo__auto_families[i].option, sizeof atomo__auto_families[i].option);
    for (int i = 0; i < AUTO_SLOTS; i++) {
        atomo__plan *p = &s->plan[i];
        if (!(s->there[i] = is_there(plan, i))) continue;
        *p = slot_plan(plan, i, s->option[first_of(i) - atomo__auto_families]);
        ATOMO_TRY(p->stages->plan(p));
        p->state = room;
        room += atomo__round_up(p->state_size);
        if (p->stages->start) ATOMO_TRY(p->stages->start(p));
    }
    plan->pick = 0;
    s->cadence = atomo__cadence_of(plan->n, short_side(plan), (int64_t)plan->option[AUTO_EVERY]);
    return ATOMO_OK;
}

static void stop(atomo__plan *plan)
{
    auto_state *s = plan->state;
    for (int i = 0; i < AUTO_SLOTS; i++)
        if (s->plan[i].state) atomo__stage_stop(&s->plan[i]);
}

static void guess(atomo__plan *plan, double bits)
{
    for (int i = 0; i < AUTO_SLOTS; i++) {
        const auto_state *s = plan->state;
        atomo__plan *p = atomo__auto_plan(plan, (int)(first_of(i) - atomo__auto_families));
        if (s->there[i]) atomo__stage_guess(p, bits);
    }
}

/* Measures the tensor in all families, exactly. */
static int search(atomo__plan *plan, const float *g, atomo__context *c)
{
    auto_state *s = plan->state;
    atomo__context own = *c;
    own.next = false; /* other families are measured before this one is encoded */
    for (int i = 0; i < AUTO_SLOTS; i++) {
        atomo__plan *p = atomo__auto_plan(plan, (int)(first_of(i) - atomo__auto_families));
        if (!(s->measured[i] = s->there[i])) continue;
        if (i == AUTO_ENTRY) {
            if (atomo__entries_measure(p, g, true) < 0) return atomo__refuse_nonfinite(plan, g);
        } else {
            ATOMO_TRY(p->stages->measure(p, g, &own));
        }
    }
    return ATOMO_OK;
}

static int measure(atomo__plan *plan, const float *g, atomo__context *c)
{
    auto_state *s = plan->state;
    const int slot = atomo__auto_families[plan->pick].slot;
    plan->settled = false;
    plan->searched = atomo__cadence_due(&s->cadence);
    if (plan->searched) {
        ATOMO_TRY(search(plan, g, c));
    } else {
        for (int i = 0; i < AUTO_SLOTS; i++) s->measured[i] = i == slot;
        atomo__plan *p = atomo__auto_plan(plan, plan->pick);
        ATOMO_TRY(p->stages->measure(p, g, c));
    }
    atomo__auto_present(plan, plan->pick);
    return ATOMO_OK;
}

/* Copies the budget's results from the plan to the plan of the chosen family, which is returned. */
static atomo__plan *hand_down(atomo__plan *plan)
{
    atomo__plan *p = atomo__auto_plan(plan, plan->pick);
    p->segment = plan->segment;
    p->fixed_bits = plan->fixed_bits - AUTO_TAG_BITS;
    p->T = plan->T;
    return p;
}

static int refine(atomo__plan *plan, const float *g)
{
    atomo__plan *p = hand_down(plan);
    plan->settled = true;
    ATOMO_TRY(atomo__stage_refine(p, g));
    plan->square = p->square;
    return ATOMO_OK;
}

static void price(atomo__plan *plan, double T)
{
    atomo__plan *p = hand_down(plan);
    atomo__stage_price(p, T);
    plan->priced_unit = p->priced_unit;
    plan->priced_fixed = AUTO_TAG_BITS + p->priced_fixed - atomo__auto_saving(plan, p, p->segment.expected);
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    auto_state *s = plan->state;
    atomo__plan *p = hand_down(plan);
    const atomo__writer before = *w;
    atomo__put(w, (uint32_t)plan->pick + 1, AUTO_TAG_BITS);
    ATOMO_TRY(p->stages->encode(p, g, c, w));
    if (p->sent == 0) {
        *w = before;
        atomo__put(w, 0, AUTO_TAG_BITS);
    }
    plan->expected = p->expected;
    plan->sent = p->sent;
    plan->variance = p->variance;
    const double level = plan->square > 0 ? plan->T / sqrt(plan->square) : 0; /* of zeros: not known */
    atomo__cadence_step(&s->cadence, atomo__auto_families[plan->pick].atoms->name, level);
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const auto_state *s = plan->state;
    const uint32_t tag = atomo__get(r, AUTO_TAG_BITS);
    if (r->bad || tag > AUTO_FAMILIES) return ATOMO_EFORMAT;
    if (tag == 0) return ATOMO_OK;
    if (!s->there[atomo__auto_families[tag - 1].slot]) return ATOMO_EFORMAT;
    atomo__plan p = s->plan[atomo__auto_families[tag - 1].slot];
    p.option = s->option[tag - 1];
    atomo__pending *left = c->pending; /* coefficients of another family in the scratch memory */
    if (left && left->full && left->plan.state != p.state) left->plan.stages->settle(c, acc);
    return p.stages->decode_add(&p, r, c, scale, acc);
}

/* Visits the chosen family, the state of the search interval, and the state of the families. */
static void learnt(atomo__plan *plan, atomo__learnt_copy *copy)
{
    auto_state *s = plan->state;
    int32_t pick = plan->pick;
    atomo__learnt_bytes(copy, &pick, sizeof pick);
    copy->bad |= pick < 0 || pick >= AUTO_FAMILIES || !s->there[atomo__auto_families[pick].slot];
    if (!copy->bad) plan->pick = pick;
    atomo__cadence_learnt(&s->cadence, copy);
    for (int i = 0; i < AUTO_SLOTS; i++) {
        if (!s->there[i]) continue;
        atomo__plan *p = atomo__auto_plan(plan, (int)(first_of(i) - atomo__auto_families));
        atomo__learnt_plan(copy, p);
        if (p->atoms->learnt) p->atoms->learnt(p, copy);
    }
}

static double bound(const atomo__plan *plan, double bits)
{
    const atomo__plan *p = atomo__auto_plan(plan, plan->pick);
    return p->atoms->bound ? p->atoms->bound(p, bits) : 0;
}

const struct atomo_atoms atomo_atoms_auto = {
    .name = "auto",
    .summary = "for each tensor the family with the least variance for its bytes: entry, taps, fourier, svd, rotated, "
               "all entries",
    .source = "Wang et al., ATOMO, NeurIPS 2018; docs/compressors.md",
    .options = options,
    .together = true,
    .stages = {.plan = plan,
               .start = start,
               .stop = stop,
               .measure = measure,
               .refine = refine,
               .guess = guess,
               .price = price,
               .encode = encode,
               .decode_add = decode_add},
    .choose = atomo__auto_choose,
    .family = atomo__auto_family,
    .bound = bound,
    .learnt = learnt,
    .missing = missing,
};
