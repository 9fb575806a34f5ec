/* plan.c - makes the plan of each tensor of a codec; stages 4 to 6 of the path. All memory is allocated here, so that
 * encoding and decoding allocate nothing. */
#include "codec/codec.h"
#include "core/packages.h"
#include <math.h>
#include <stdio.h>

enum { MAX_TENSORS = 1 << 20 };

/* Makes room for tensor numbers up to `want`. One block holds the three arrays segment, plan and order. */
static int grow(atomo_codec *c, int want)
{
    if (want > c->plan_room) {
        size_t size = (size_t)ATOMO_MAX(want, 2 * c->plan_room);
        atomo__segment *segment;
        ATOMO_TRY(atomo__calloc((void **)&segment, (sizeof *segment + 2 * sizeof(atomo__plan *)) * size));
        atomo__plan **plan = (atomo__plan **)(segment + size);
        if (c->plans) memcpy(plan, c->plan, sizeof *plan * (size_t)c->plans);
        atomo__free(c->segment);
        c->segment = segment;
        c->plan = plan;
        c->order = plan + size;
        c->plan_room = (int)size;
    }
    c->plans = ATOMO_MAX(c->plans, want);
    return ATOMO_OK;
}

/* Returns a 16-bit hash of all that the meaning of a body depends on: the name, the options except the budget's and
 * together, the shape, the rows of the fold, the way. */
static uint32_t hash_of(const atomo__plan *p)
{
    const atomo_codec *c = p->codec;
    const int first = c->atoms ? c->own_options : 0;
    double rows = (double)p->custom_rows;
    uint32_t h = atomo__crc32(0, c->name, strlen(c->name));
    if (p->as_another) {
        h = atomo__crc32(h, p->atoms->name, strlen(p->atoms->name));
        h = atomo__crc32(h, p->own, sizeof p->own);
    }
    h = atomo__crc32(h, c->option + first, sizeof(double) * (size_t)(atomo__feedback_index(c) + 1 - first));
    h = atomo__crc32(h, p->shape, sizeof(double) * (size_t)p->ndim);
    h = atomo__crc32(h, &rows, sizeof rows);
    if (c->way) h = atomo__crc32(h, &c->way, sizeof c->way);
    if (p->variant) h = atomo__crc32(h, p->variant, strlen(p->variant));
    if (c->scaled && !c->feedback) h = atomo__crc32(h, "factor", 6);
    return (h ^ h >> 16) & 0xFFFF;
}

static int describe(atomo__plan *p, const char *name, double custom_rows)
{
    p->n = 1;
    for (int i = 0; i < p->ndim; i++) {
        ATOMO_REQUIRE(p->shape[i] >= 0 && p->shape[i] == floor(p->shape[i]) && (double)p->n * p->shape[i] < 0x1p47,
                      ATOMO_ESHAPE, "%s: tensor %d has shape %s", p->codec->name, p->tensor,
                      atomo__dims_text(p->ndim, p->shape));
        p->n *= (int64_t)p->shape[i];
    }
    ATOMO_REQUIRE(p->n >= 1, ATOMO_ESHAPE, "%s: tensor %d of shape %s is empty", p->codec->name, p->tensor,
                  atomo__dims_text(p->ndim, p->shape));
    ATOMO_REQUIRE(p->n <= UINT32_MAX / 8, ATOMO_ELIMIT,
                  "%s: tensor %d of shape %s: a message holds at most %.0f entries", p->codec->name, p->tensor,
                  atomo__dims_text(p->ndim, p->shape), (double)(UINT32_MAX / 8));
    ATOMO_REQUIRE(custom_rows >= 0 && (custom_rows == 0 || fmod((double)p->n, custom_rows) == 0), ATOMO_ESHAPE,
                  "%s: fold: %g rows do not divide tensor %d of shape %s", p->codec->name, custom_rows, p->tensor,
                  atomo__dims_text(p->ndim, p->shape));
    p->custom_rows = (int64_t)custom_rows;
    if (name && *name)
        snprintf(p->name, sizeof p->name, "%s %s", name, atomo__dims_text(p->ndim, p->shape));
    else
        snprintf(p->name, sizeof p->name, "%d %s", p->tensor, atomo__dims_text(p->ndim, p->shape));
    return ATOMO_OK;
}

/* The atom set and options that a tensor is coded with instead of the codec's; atoms NULL: with the codec's. */
typedef struct {
    const struct atomo_atoms *atoms;
    double option[ATOMO__MAX_OPTIONS];
} replacement;

static int plan_new(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows, const char *name,
                    const replacement *as, atomo__plan **out)
{
    atomo__plan *p;
    ATOMO_TRY(atomo__calloc((void **)&p, sizeof *p));
    p->codec = c;
    p->atoms = c->atoms;
    p->tensor = tensor;
    p->ndim = ndim;
    if (ndim) memcpy(p->shape, shape, sizeof(double) * (size_t)ndim);
    p->option = c->option + (c->atoms ? c->own_options : 0);
    if (as->atoms) {
        p->as_another = true;
        p->atoms = as->atoms;
        memcpy(p->own, as->option, sizeof p->own);
        p->option = p->own;
    }
    p->stages = p->atoms ? &p->atoms->stages : &c->compressor->stages;
    int rc = describe(p, name, custom_rows);
    if (rc == 0) rc = p->stages->plan(p);
    if (rc == 0) rc = atomo__form_plan(c, p);
    if (rc == 0 && p->state_size) rc = atomo__calloc(&p->state, p->state_size);
    if (rc == 0) rc = atomo__calloc(&p->before, atomo__undo_size(p));
    if (rc == 0 && c->feedback) rc = atomo__feedback_plan(p);
    if (rc == 0 && p->scratch > c->scratch_size) {
        void *scratch;
        rc = atomo__alloc(&scratch, p->scratch);
        if (rc == 0) {
            atomo__free(c->scratch);
            c->scratch = scratch;
            c->scratch_size = p->scratch;
        }
    }
    if (rc == 0 && p->stages->start) rc = p->stages->start(p);
    if (rc < 0) {
        atomo__plan_free(p);
        return rc;
    }
    p->hash = hash_of(p);
    *out = p;
    return ATOMO_OK;
}

/* Returns whether error feedback holds something back for the tensor. */
static bool holds_back(const atomo__plan *p)
{
    for (int64_t i = 0; p->kept && i < p->n; i++)
        if (p->kept[i] != 0) return true;
    return false;
}

static int plan_tensor(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows, const char *name,
                       const replacement *as)
{
    ATOMO_REQUIRE(tensor >= 1 && tensor <= MAX_TENSORS, ATOMO_EARG, "%s: tensor number %d, expected 1 to %d", c->name,
                  tensor, MAX_TENSORS);
    ATOMO_REQUIRE(c->busy == 0, ATOMO_EARG,
                  "%s: plan: tensor %d while an exchange codes with it; finish() the step first", c->name, tensor);
    ATOMO_REQUIRE(ndim >= 0 && ndim <= ATOMO_MAX_DIM, ATOMO_ESHAPE,
                  "%s: tensor %d has %d dimensions, at most %d are possible", c->name, tensor, ndim, ATOMO_MAX_DIM);
    const atomo__plan *old = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(!(c->stream.open && old && old->open), ATOMO_EARG,
                  "%s: plan: tensor %s has been pushed in step %u, which has not been ended", c->name, old->name,
                  (unsigned)c->stream.step);
    ATOMO_REQUIRE(!old || !holds_back(old), ATOMO_EARG,
                  "%s: tensor %s is planned again as %s, which would lose its residual of error feedback; give every "
                  "tensor a number of its own",
                  c->name, old->name, atomo__dims_text(ndim, shape));
    atomo__plan *p;
    ATOMO_TRY(plan_new(c, tensor, ndim, shape, custom_rows, name, as, &p));
    int rc = grow(c, tensor);
    if (rc < 0) {
        atomo__plan_free(p);
        return rc;
    }
    if (c->plan[tensor - 1]) c->entries -= (double)c->plan[tensor - 1]->n;
    atomo__plan_free(c->plan[tensor - 1]);
    c->plan[tensor - 1] = p;
    c->entries += (double)p->n;
    return ATOMO_OK;
}

int atomo_codec_plan(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows, const char *name)
{
    return plan_tensor(c, tensor, ndim, shape, custom_rows, name, &(replacement){.atoms = NULL});
}

/* *out = the atom set called `name` with its option values; `values` are in the order of the compressor's table. */
static int find_replacement(const atomo_codec *c, const char *name, int count, const double *values, replacement *out)
{
    const struct atomo_compressor *k;
    int i = 0;
    *out = (replacement){.atoms = atomo__atoms_named("dense"), .option = {32}};
    if (strcmp(name, "none") == 0) return ATOMO_OK;
    while (atomo__registry_entry(i, &k, &out->atoms) == ATOMO_OK && out->atoms && strcmp(out->atoms->name, name) != 0)
        i++;
    ATOMO_REQUIRE(out->atoms, ATOMO_EARG, "%s: override '%s', expected the name of a set of atoms, or none", c->name,
                  name);
    ATOMO_TRY(atomo__need(name, out->atoms->missing));
    const int own = atomo__option_count(k->options), all = own + atomo__option_count(out->atoms->options);
    for (int j = own; j < all; j++) {
        atomo_option_info o;
        ATOMO_TRY(atomo_codec_option(i, j, &o));
        const double v = j < count && !isnan(values[j]) ? values[j] : o.standard;
        ATOMO_REQUIRE(v >= o.min && v <= o.max, ATOMO_EARG, "%s: %s is %g, expected %g to %g", name, o.key, v, o.min,
                      o.max);
        out->option[j - own] = v;
    }
    return ATOMO_OK;
}

int atomo_codec_plan_as(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows,
                        const char *label, const char *atoms, int count, const double *values)
{
    ATOMO_REQUIRE(c->atoms && c->compressor->takes_atoms, ATOMO_EARG,
                  "%s: overrides need a compressor with atoms, which it is not", c->name);
    replacement as;
    ATOMO_TRY(find_replacement(c, atoms, count, values, &as));
    ATOMO_REQUIRE(!as.atoms->choose || c->budget_atoms == 0, ATOMO_EARG,
                  "%s: override '%s' cannot share a budget in atoms; give ratio or bytes", c->name, atoms);
    return plan_tensor(c, tensor, ndim, shape, custom_rows, label, &as);
}

int atomo_codec_is_planned(const atomo_codec *c, int tensor, int ndim, const double *shape)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    return p && p->ndim == ndim && (ndim == 0 || memcmp(p->shape, shape, sizeof(double) * (size_t)ndim) == 0);
}
