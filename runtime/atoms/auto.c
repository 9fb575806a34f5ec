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
#include "atoms/auto/families.h"
#include "atoms/common/basis.h"
#include "core/carve.h"
#include <math.h>

/* An eigendecomposition of a short side of thousands takes seconds. */
enum { MAX_SHORT_SIDE = 1024 };
/* Share of the energy in atoms whose bits were chosen for another size, from which a search is made at once. */
static const double CHANGED = 0.25;

static const struct atomo__option options[] = {
    {"every", ATOMO_OPTION_INT, 0, 0, 1e9, NULL,
     "steps between searches for the best family of a tensor; 0: as often as costs 5 % of the encoding"},
    {"keep", ATOMO_OPTION_INT, 1, 1, 1e6, NULL, "steps that a spectral basis is kept (svd's every)"},
    {"prefer", ATOMO_OPTION_ENUM, 0, 0, 1, "variance|accuracy",
     "the family of least variance; or, as training does unless told, of least harm: entries count twice, svd 32 "
     "times, a nanosecond of coding an entry as 1/30 of the gradient's square"},
    {0}};

static const struct auto_family *first_of(int slot)
{
    const struct auto_family *f = atomo__auto_families;
    while (f->slot != slot) f++;
    return f;
}

/* A slot's part: the tensor, with the options of its first family. keep: the value of svd's every. */
static atomo__part slot_part(const atomo__part *part, int slot, double *option)
{
    atomo__part p = {.codec = part->codec, .tensor = part->tensor, .ndim = part->ndim, .n = part->n};
    const struct auto_family *f = first_of(slot);
    memcpy(p.name, part->name, sizeof p.name);
    memcpy(p.shape, part->shape, sizeof p.shape);
    memcpy(option, f->option, sizeof f->option);
    if (slot == AUTO_SVD) option[2] = part->option[AUTO_KEEP];
    p.custom_rows = part->custom_rows;
    p.atoms = f->atoms;
    p.stages = &f->atoms->stages;
    p.weight = part->option[AUTO_PREFER] != 0 ? sqrt(f->harm) : 1;
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
    if (slot == AUTO_TAPS) return part->ndim == 4 && part->shape[1] * part->shape[2] > 1;
    return slot != AUTO_SVD || short_side(part) <= MAX_SHORT_SIDE;
}

static int plan(atomo__part *part)
{
    part->state_size = atomo__round_up(sizeof(auto_state));
    for (int i = 0; i < AUTO_SLOTS; i++) {
        double option[3];
        atomo__part p = slot_part(part, i, option);
        if (!is_there(part, i)) continue;
        ATOMO_TRY(p.stages->plan(&p));
        part->body_max = ATOMO_MAX(part->body_max, p.body_max + 1);
        part->scratch = ATOMO_MAX(part->scratch, p.scratch);
        part->state_size += atomo__round_up(p.state_size);
    }
    return ATOMO_OK;
}

static int start(atomo__part *part)
{
    auto_state *s = part->state;
    char *room = (char *)part->state + atomo__round_up(sizeof(auto_state));
    for (int i = 0; i < AUTO_FAMILIES; i++)
        memcpy(s->option[i], atomo__auto_families[i].option, sizeof atomo__auto_families[i].option);
    for (int i = 0; i < AUTO_SLOTS; i++) {
        atomo__part *p = &s->part[i];
        if (!(s->there[i] = is_there(part, i))) continue;
        *p = slot_part(part, i, s->option[first_of(i) - atomo__auto_families]);
        ATOMO_TRY(p->stages->plan(p));
        p->state = room;
        room += atomo__round_up(p->state_size);
        if (p->stages->start) ATOMO_TRY(p->stages->start(p));
    }
    part->pick = 0;
    s->cadence = atomo__cadence_of(part->n, short_side(part), (int64_t)part->option[AUTO_EVERY]);
    return ATOMO_OK;
}

static void stop(atomo__part *part)
{
    auto_state *s = part->state;
    for (int i = 0; i < AUTO_SLOTS; i++)
        if (s->part[i].state) atomo__stage_stop(&s->part[i]);
}

static void guess(atomo__part *part, double bits)
{
    for (int i = 0; i < AUTO_SLOTS; i++) {
        const auto_state *s = part->state;
        atomo__part *p = atomo__auto_part(part, (int)(first_of(i) - atomo__auto_families));
        if (s->there[i]) atomo__stage_guess(p, bits);
    }
}

/* All families of the tensor, exactly. */
static int search(atomo__part *part, const float *g, atomo__coder *c)
{
    auto_state *s = part->state;
    atomo__coder own = *c;
    own.next = false; /* others are measured in between */
    for (int i = 0; i < AUTO_SLOTS; i++) {
        atomo__part *p = atomo__auto_part(part, (int)(first_of(i) - atomo__auto_families));
        if (!(s->measured[i] = s->there[i])) continue;
        if (i == AUTO_ENTRY) {
            if (atomo__entries_measure(p, g, true) < 0) return atomo__refuse_nonfinite(part, g);
        } else {
            ATOMO_TRY((i == AUTO_SVD ? atomo__svd_search : p->stages->measure)(p, g, &own));
        }
    }
    return ATOMO_OK;
}

static int measure(atomo__part *part, const float *g, atomo__coder *c)
{
    auto_state *s = part->state;
    const int slot = atomo__auto_families[part->pick].slot;
    part->settled = false;
    part->searched = atomo__cadence_due(&s->cadence);
    if (part->searched) {
        ATOMO_TRY(search(part, g, c));
    } else {
        for (int i = 0; i < AUTO_SLOTS; i++) s->measured[i] = i == slot;
        atomo__part *p = atomo__auto_part(part, part->pick);
        ATOMO_TRY(p->stages->measure(p, g, c));
        part->searched = slot == AUTO_SVD && atomo__svd_strange(p) > CHANGED && atomo__cadence_early(&s->cadence);
        if (part->searched) ATOMO_TRY(search(part, g, c));
    }
    atomo__auto_present(part, part->pick);
    return ATOMO_OK;
}

/* The chosen family takes over what the budget made of the part. */
static atomo__part *hand_down(atomo__part *part)
{
    atomo__part *p = atomo__auto_part(part, part->pick);
    p->segment = part->segment;
    p->fixed_bits = part->fixed_bits - AUTO_TAG_BITS;
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
    part->priced_fixed = AUTO_TAG_BITS + p->priced_fixed - atomo__auto_saving(part, p, p->segment.expected);
}

static int encode(atomo__part *part, const float *g, atomo__coder *c, atomo__writer *w)
{
    auto_state *s = part->state;
    atomo__part *p = hand_down(part);
    const atomo__writer before = *w;
    atomo__put(w, (uint32_t)part->pick + 1, AUTO_TAG_BITS);
    ATOMO_TRY(p->stages->encode(p, g, c, w));
    if (p->sent == 0) {
        *w = before;
        atomo__put(w, 0, AUTO_TAG_BITS);
    }
    part->expected = p->expected;
    part->sent = p->sent;
    part->variance = p->variance;
    atomo__cadence_step(&s->cadence, atomo__auto_families[part->pick].atoms->name, part->T / sqrt(part->square));
    return ATOMO_OK;
}

static int decode_add(const atomo__part *part, atomo__reader *r, atomo__coder *c, float scale, float *acc)
{
    const auto_state *s = part->state;
    const uint32_t tag = atomo__get(r, AUTO_TAG_BITS);
    if (r->bad || tag > AUTO_FAMILIES) return ATOMO_EFORMAT;
    if (tag == 0) return ATOMO_OK;
    if (!s->there[atomo__auto_families[tag - 1].slot]) return ATOMO_EFORMAT;
    atomo__part p = s->part[atomo__auto_families[tag - 1].slot];
    p.option = s->option[tag - 1];
    if (!p.atoms->transform) atomo__basis_settle(c, acc); /* it uses the scratch for something else */
    return p.stages->decode_add(&p, r, c, scale, acc);
}

/* The choice, when it is made again, and what its families have learnt. */
static void learnt(atomo__part *part, atomo__walk *w)
{
    auto_state *s = part->state;
    int32_t pick = part->pick;
    atomo__walk_bytes(w, &pick, sizeof pick);
    w->bad |= pick < 0 || pick >= AUTO_FAMILIES || !s->there[atomo__auto_families[pick].slot];
    if (!w->bad) part->pick = pick;
    atomo__cadence_learnt(&s->cadence, w);
    for (int i = 0; i < AUTO_SLOTS; i++) {
        if (!s->there[i]) continue;
        atomo__part *p = atomo__auto_part(part, (int)(first_of(i) - atomo__auto_families));
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
    .choose = atomo__auto_choose,
    .family = atomo__auto_family,
    .learnt = learnt,
};
