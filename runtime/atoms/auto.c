/* auto.c - per tensor the family of atoms that suits it: entry, taps, fourier by rows, svd in 12 to 2 bits, all entries
 * in few bits; stages 4 to 6 and 8 of the path.
 *
 * Wang et al. 2018 leave the decomposition to the user. For a family f both the variance V_f(T) and the message's bits
 * B_f(T) of Algorithm 1 at the price T^2 of a bit are closed forms of its coefficients, so the best family at a price
 * is the one of least V + T^2 B; the price is the one at which the chosen messages meet the budget
 * (codec/step_budget.c). A message says in 4 bits which family it is; one of no atoms is those 4 bits. Promise:
 * unbiased, because every family is and the choice depends on nothing that is drawn; the variance is the chosen
 * family's closed form.
 *
 * A search measures the tensor in all families. Between searches (atoms/common/auto_interval.h) only the chosen one is
 * measured; a gradient whose spectrum has changed meanwhile is searched at once.
 */
#include "atoms/common/auto_interval.h"
#include "atoms/common/basis.h"
#include "atoms/svd.h"
#include <math.h>

enum { EVERY, KEEP, PREFER, OPTIONS };
enum { TAG_BITS = 4, MAX_SHORT_SIDE = 1024 };
static const double CHANGED = 0.25; /* share of the energy in atoms whose bits were chosen for another size */

static const struct atomo__option options[] = {
    {"every", ATOMO_OPTION_INT, 0, 0, 1e9, NULL,
     "steps between searches for the best family of a tensor; 0: as often as costs 5 % of the encoding"},
    {"keep", ATOMO_OPTION_INT, 1, 1, 1e6, NULL, "steps that a spectral basis is kept (svd's every)"},
    {"prefer", ATOMO_OPTION_ENUM, 0, 0, 1, "variance|accuracy",
     "the family of least variance; or, as training does unless told, of least harm: entries count twice, svd 32 "
     "times, a nanosecond of coding an entry as 1/30 of the gradient's square"},
    {0}};

extern const struct atomo_atoms atomo_atoms_entry, atomo_atoms_taps, atomo_atoms_fourier, atomo_atoms_svd,
    atomo_atoms_dense;

/* A slot is what is measured together; a family is a slot with options of its own. The tag in a message is the family's
 * number, 1 the first. */
enum { ENTRY, TAPS, FOURIER, SVD, DENSE = SVD + 1, SLOTS = DENSE + 3 };
static const struct family {
    const char *name;
    const struct atomo_atoms *atoms;
    int slot;
    double option[3];
    double harm; /* what its variance counts where accuracy is preferred: from training runs, docs/results.md */
} families[] = {
    {"entry:step=0.25", &atomo_atoms_entry, ENTRY, {0.25}, 2},
    {"entry:step=1", &atomo_atoms_entry, ENTRY, {1}, 8},
    {"taps:step=0.25", &atomo_atoms_taps, TAPS, {0.25}, 1},
    {"taps:step=1", &atomo_atoms_taps, TAPS, {1}, 4},
    {"fourier:rows=1,step=0.25", &atomo_atoms_fourier, FOURIER, {0.25, 1, 1}, 1},
    {"fourier:rows=1,step=1", &atomo_atoms_fourier, FOURIER, {1, 1, 1}, 4},
    {"svd", &atomo_atoms_svd, SVD, {0, 0, 1}, 32},
    {"dense:bits=8", &atomo_atoms_dense, DENSE, {8}, 1},
    {"dense:bits=4", &atomo_atoms_dense, DENSE + 1, {4}, 1},
    {"dense:bits=2", &atomo_atoms_dense, DENSE + 2, {2}, 1},
};
enum { FAMILIES = sizeof families / sizeof *families };
_Static_assert(FAMILIES < 1 << TAG_BITS, "a tag holds every family, and 0");

typedef struct {
    atomo__part part[SLOTS];
    double option[FAMILIES][3];
    bool there[SLOTS], measured[SLOTS];
    atomo__cadence cadence;
    /* after the struct: the states of the slots */
} state;

static size_t round_up(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

static const struct family *first_of(int slot)
{
    const struct family *f = families;
    while (f->slot != slot) f++;
    return f;
}

/* A slot's part: the tensor, with the options of its first family. keep: the value of svd's every. */
static atomo__part slot_part(const atomo__part *part, int slot, double *option)
{
    atomo__part p = {.codec = part->codec, .tensor = part->tensor, .ndim = part->ndim, .n = part->n};
    const struct family *f = first_of(slot);
    memcpy(p.name, part->name, sizeof p.name);
    memcpy(p.shape, part->shape, sizeof p.shape);
    memcpy(option, f->option, sizeof f->option);
    if (f->atoms == &atomo_atoms_svd) option[2] = part->option[KEEP];
    p.custom_rows = part->custom_rows;
    p.atoms = f->atoms;
    p.stages = &f->atoms->stages;
    p.weight = part->option[PREFER] != 0 ? sqrt(f->harm) : 1;
    p.option = option;
    return p;
}

static int64_t short_side(const atomo__part *part)
{
    int64_t rows = part->custom_rows ? part->custom_rows : part->ndim > 1 ? (int64_t)part->shape[0] : 1;
    return ATOMO_MIN(rows, part->n / rows);
}

/* An eigendecomposition of thousands would take seconds, so then there is no spectral family; and where there are no
 * taps, they would be entries again. */
static bool is_there(const atomo__part *part, int slot)
{
    if (slot == TAPS) return part->ndim == 4 && part->shape[1] * part->shape[2] > 1;
    return slot != SVD || short_side(part) <= MAX_SHORT_SIDE;
}

static int plan(atomo__part *part)
{
    part->state_size = round_up(sizeof(state));
    for (int i = 0; i < SLOTS; i++) {
        double option[3];
        atomo__part p = slot_part(part, i, option);
        if (!is_there(part, i)) continue;
        ATOMO_TRY(p.stages->plan(&p));
        part->body_max = ATOMO_MAX(part->body_max, p.body_max + 1);
        part->scratch = ATOMO_MAX(part->scratch, p.scratch);
        part->state_size += round_up(p.state_size);
    }
    return ATOMO_OK;
}

static int start(atomo__part *part)
{
    state *s = part->state;
    char *room = (char *)part->state + round_up(sizeof(state));
    for (int i = 0; i < FAMILIES; i++) memcpy(s->option[i], families[i].option, sizeof families[i].option);
    for (int i = 0; i < SLOTS; i++) {
        atomo__part *p = &s->part[i];
        if (!(s->there[i] = is_there(part, i))) continue;
        *p = slot_part(part, i, s->option[first_of(i) - families]);
        ATOMO_TRY(p->stages->plan(p));
        p->state = room;
        room += round_up(p->state_size);
        if (p->stages->start) ATOMO_TRY(p->stages->start(p));
    }
    part->pick = 0;
    s->cadence = atomo__cadence_of(part->n, short_side(part), (int64_t)part->option[EVERY]);
    return ATOMO_OK;
}

static void stop(atomo__part *part)
{
    state *s = part->state;
    for (int i = 0; i < SLOTS; i++)
        if (s->part[i].state) atomo__stage_stop(&s->part[i]);
}

/* The part of a family, with its options. */
static atomo__part *part_of(const atomo__part *part, int pick)
{
    state *s = part->state;
    atomo__part *p = &s->part[families[pick].slot];
    p->option = s->option[pick];
    return p;
}

/* What an expected number of atoms saves: a message of none is its tag alone. */
static double saving(const atomo__part *part, const atomo__part *p, double expected)
{
    const int sampling = (int)part->codec->option[ATOMO__SAMPLING];
    const bool few = p->atoms == &atomo_atoms_svd; /* long atoms, drawn with one random number unless told otherwise */
    const bool systematic = sampling == ATOMO__SYSTEMATIC || (few && sampling == ATOMO__SAMPLING_AUTO);
    const double none = systematic ? ATOMO_MAX(0, 1 - expected) : exp(-expected);
    return p->atoms == &atomo_atoms_dense ? 0 : none * (few ? 24 : 63);
}

/* The part shows the budget what its chosen family does. */
static void present(atomo__part *part, int pick)
{
    const atomo__part *p = part_of(part, pick);
    part->pick = pick;
    part->segment = p->segment;
    part->fixed_bits = TAG_BITS + p->fixed_bits;
    part->square = p->square;
}

static void guess(atomo__part *part, double bits)
{
    for (int i = 0; i < SLOTS; i++) {
        const state *s = part->state;
        atomo__part *p = part_of(part, (int)(first_of(i) - families));
        if (s->there[i]) atomo__stage_guess(p, bits);
    }
}

/* All families of the tensor, exactly. */
static int search(atomo__part *part, const float *g, atomo__coder *c)
{
    state *s = part->state;
    atomo__coder own = *c;
    own.next = false; /* others are measured in between */
    for (int i = 0; i < SLOTS; i++) {
        atomo__part *p = part_of(part, (int)(first_of(i) - families));
        if (!(s->measured[i] = s->there[i])) continue;
        if (i == ENTRY) {
            if (atomo__entries_measure(p, g, true) < 0) return atomo__refuse_nonfinite(part, g);
        } else {
            ATOMO_TRY((i == SVD ? atomo__svd_search : p->stages->measure)(p, g, &own));
        }
    }
    return ATOMO_OK;
}

static int measure(atomo__part *part, const float *g, atomo__coder *c)
{
    state *s = part->state;
    const int slot = families[part->pick].slot;
    part->settled = false;
    part->searched = atomo__cadence_due(&s->cadence);
    if (part->searched) {
        ATOMO_TRY(search(part, g, c));
    } else {
        for (int i = 0; i < SLOTS; i++) s->measured[i] = i == slot;
        atomo__part *p = part_of(part, part->pick);
        ATOMO_TRY(p->stages->measure(p, g, c));
        part->searched = slot == SVD && atomo__svd_strange(p) > CHANGED && atomo__cadence_early(&s->cadence);
        if (part->searched) ATOMO_TRY(search(part, g, c));
    }
    present(part, part->pick);
    return ATOMO_OK;
}

/* E||ghat - g||^2 of a measured family at T. */
static double variance_at(const atomo__part *p, double T)
{
    const atomo__segment *s = &p->segment;
    if (p->atoms == &atomo_atoms_dense) return *(const double *)p->state;
    const double t = T * sqrt(s->unit);
    if (s->spectrum) {
        const double step = p->option[0] * t;
        return t > 0 ? atomo__spectrum_noise(s->spectrum, t) + s->kept * step * step / 6 : 0;
    }
    double noisy = 0;
    for (int64_t i = 0; i < s->n; i++) noisy += s->f64[i] * ATOMO_MAX(s->f64[i], T * sqrt(s->cost[i]));
    return ATOMO_MAX(0, noisy / (p->weight * p->weight) - p->square);
}

/* Bits of the message of a measured family at T, under the prices that go with what it draws there. */
static double bits_at(const atomo__part *part, atomo__part *p, double T)
{
    if (p->atoms == &atomo_atoms_svd) atomo__svd_choose(p, T);
    for (int round = 0; round < 3; round++) {
        atomo__budget_evaluate(&p->segment, T);
        atomo__stage_price(p, T);
        if (!p->segment.spectrum || round == 2 || !(T > 0)) break;
        p->segment.unit = p->priced_unit;
        p->fixed_bits = p->priced_fixed;
    }
    return TAG_BITS + p->priced_fixed + p->priced_unit * p->segment.expected - saving(part, p, p->segment.expected);
}

/* A relative variance v of the whole gradient costs a run at most a factor of 1 + v in steps, so time trades against it
 * as the share of a step: of one that takes 30 ns an entry (ResNet-18's 35 images or VGG-11's 90 on one core). */
static double harm_of(const atomo__part *part, int pick, double variance)
{
    const double ns_an_entry = 30;
    const state *s = part->state;
    const struct family *f = &families[pick];
    const double energy = part->codec->energy > 0 ? part->codec->energy : s->part[f->slot].square / (double)part->n;
    return f->harm * variance + atomo__cadence_cost(&s->cadence, f->atoms->name) / ns_an_entry * energy;
}

/* V + T^2 B of a family (its harm for V where accuracy is preferred), V or the harm alone into *harm; leaves its
 * segment at T. */
static double lagrangian(const atomo__part *part, int pick, double T, double *harm)
{
    atomo__part *p = part_of(part, pick);
    const double bits = bits_at(part, p, T), variance = variance_at(p, T);
    *harm = part->option[PREFER] != 0 ? harm_of(part, pick, variance) : variance;
    return *harm + T * T * bits;
}

static double choose(atomo__part *part, double T, int pick)
{
    const state *s = part->state;
    double harm, least = INFINITY, cost;
    if (part->settled) pick = part->pick;
    if (pick >= FAMILIES || (pick >= 0 && !s->measured[families[pick].slot])) return NAN;
    for (int i = 0; pick == ATOMO__BEST && i < FAMILIES; i++) {
        if (!s->measured[families[i].slot]) continue;
        cost = lagrangian(part, i, T, &harm);
        if (cost < least) {
            least = cost;
            part->pick = i;
        }
    }
    if (pick == ATOMO__BEST) pick = part->pick;
    lagrangian(part, pick, T, &harm);
    present(part, pick);
    return harm;
}

/* The chosen family takes over what the budget made of the part. */
static atomo__part *hand_down(atomo__part *part)
{
    atomo__part *p = part_of(part, part->pick);
    p->segment = part->segment;
    p->fixed_bits = part->fixed_bits - TAG_BITS;
    p->T = part->T;
    return p;
}

static int refine(atomo__part *part, const float *g)
{
    atomo__part *p = hand_down(part);
    part->settled = true;
    ATOMO_TRY(atomo__stage_refine(p, g));
    part->square = p->square;
    return ATOMO_OK;
}

static void price(atomo__part *part, double T)
{
    atomo__part *p = hand_down(part);
    atomo__stage_price(p, T);
    part->priced_unit = p->priced_unit;
    part->priced_fixed = TAG_BITS + p->priced_fixed - saving(part, p, p->segment.expected);
}

static int encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w)
{
    state *s = part->state;
    atomo__part *p = hand_down(part);
    const atomo__writer before = *w;
    atomo__put(w, (uint32_t)part->pick + 1, TAG_BITS);
    ATOMO_TRY(p->stages->encode(p, g, c, w));
    if (p->sent == 0) {
        *w = before;
        atomo__put(w, 0, TAG_BITS);
    }
    part->expected = p->expected;
    part->sent = p->sent;
    part->variance = p->variance;
    atomo__cadence_step(&s->cadence, families[part->pick].atoms->name, part->T / sqrt(part->square));
    return ATOMO_OK;
}

static int decode_add(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc)
{
    const state *s = part->state;
    const uint32_t tag = atomo__get(r, TAG_BITS);
    if (r->bad || tag > FAMILIES) return ATOMO_EFORMAT;
    if (tag == 0) return ATOMO_OK;
    if (!s->there[families[tag - 1].slot]) return ATOMO_EFORMAT;
    atomo__part p = s->part[families[tag - 1].slot];
    p.option = s->option[tag - 1];
    if (!p.atoms->transform) atomo__basis_settle(c, acc); /* it uses the scratch for something else */
    return p.stages->decode_add(&p, r, c, scale, acc);
}

static const char *family(const atomo__part *part)
{
    return families[part->pick].name;
}

/* The choice, when it is made again, and what its families have learnt. */
static void learnt(atomo__part *part, atomo__walk *w)
{
    state *s = part->state;
    int32_t pick = part->pick;
    atomo__walk_bytes(w, &pick, sizeof pick);
    w->bad |= pick < 0 || pick >= FAMILIES || !s->there[families[pick].slot];
    if (!w->bad) part->pick = pick;
    atomo__cadence_learnt(&s->cadence, w);
    for (int i = 0; i < SLOTS; i++) {
        if (!s->there[i]) continue;
        atomo__part *p = part_of(part, (int)(first_of(i) - families));
        atomo__walk_part(w, p);
        if (p->atoms->learnt) p->atoms->learnt(p, w);
    }
}

const struct atomo_atoms atomo_atoms_auto = {
    .name = "auto",
    .summary =
        "for each tensor the family with the least variance for its bytes: entry, taps, fourier, svd, all entries",
    .source = "Wang et al., ATOMO, NeurIPS 2018; docs/compressors.md",
    .options = options,
    .stages = {.plan = plan,
               .start = start,
               .stop = stop,
               .measure = measure,
               .refine = refine,
               .guess = guess,
               .price = price,
               .encode = encode,
               .decode_add = decode_add},
    .choose = choose,
    .family = family,
    .learnt = learnt,
};
