/* codec.c - compressors by name, their options, and the plans of their tensors. Everything is allocated here, so that
 * encoding and decoding allocate nothing. */
#include "codec/codec.h"
#include <math.h>
#include <stdio.h>

enum { MAX_TENSORS = 1 << 20 };

static int set_options(atomo_codec *c, int index, int count, const double *values)
{
    for (int j = 0; j < c->options; j++) {
        atomo_option_info o;
        ATOMO_TRY(atomo_codec_option(index, j, &o));
        double v = j < count ? values[j] : NAN;
        ATOMO_REQUIRE(isnan(v) || (v >= o.min && v <= o.max), ATOMO_EARG, "%s: %s is %g, expected %g to %g", c->name,
                      o.key, v, o.min, o.max);
        c->option[j] = isnan(v) ? o.standard : v;
    }
    c->feedback = c->option[c->options - 1] != 0;
    c->scaled = c->feedback && !c->compressor->contracts;
    if (!c->atoms) return ATOMO_OK;
    const double *o = c->option;
    int given = !isnan(o[ATOMO__BUDGET_ATOMS]) + !isnan(o[ATOMO__BUDGET_RATIO]) + !isnan(o[ATOMO__BUDGET_BYTES]);
    ATOMO_REQUIRE(given <= 1, ATOMO_EARG, "%s: give one budget out of atoms, ratio and bytes", c->name);
    ATOMO_REQUIRE(!c->atoms->choose || isnan(o[ATOMO__BUDGET_ATOMS]), ATOMO_EARG,
                  "%s: atoms=%g: an atom of one family is not one of another; give ratio= or bytes=", c->name,
                  o[ATOMO__BUDGET_ATOMS]);
    c->budget_atoms = isnan(o[ATOMO__BUDGET_ATOMS]) ? 0 : o[ATOMO__BUDGET_ATOMS];
    c->budget_ratio = isnan(o[ATOMO__BUDGET_RATIO]) ? (given == 0 ? 16 : 0) : o[ATOMO__BUDGET_RATIO];
    c->budget_bytes = isnan(o[ATOMO__BUDGET_BYTES]) ? 0 : o[ATOMO__BUDGET_BYTES];
    return ATOMO_OK;
}

int atomo_codec_new(const char *name, int count, const double *values, double seed, int way, atomo_codec **out)
{
    atomo_codec_info about;
    int index = -1, n = atomo_codec_count();
    *out = NULL;
    for (int i = 0; i < n && index < 0; i++)
        if (atomo_codec_about(i, &about) == ATOMO_OK && strcmp(about.name, name) == 0) index = i;
    ATOMO_REQUIRE(index >= 0, ATOMO_EARG, "compressor: there is none called '%s'", name);
    ATOMO_REQUIRE(count <= about.options, ATOMO_EARG, "%s: %d options given, it has %d", name, count, about.options);
    ATOMO_REQUIRE(seed >= 0 && seed <= 0x1p53 && seed == floor(seed), ATOMO_EARG,
                  "%s: seed is %g, expected an integer in 0 .. 2^53", name, seed);
    ATOMO_REQUIRE(way >= 0 && way <= 255, ATOMO_EARG, "%s: way is %d, expected 0 to 255", name, way);
    atomo_codec *c;
    ATOMO_TRY(atomo__calloc((void **)&c, sizeof *c));
    c->refs = 1;
    atomo__registry_entry(index, &c->compressor, &c->atoms);
    c->name = about.name;
    c->id = atomo__crc32(0, c->name, strlen(c->name)) & 255;
    c->own_options = atomo__option_count(c->compressor->options);
    c->options = about.options;
    c->seed[0] = (uint32_t)(uint64_t)seed;
    c->seed[1] = (uint32_t)((uint64_t)seed >> 32) ^ (uint32_t)way << 24; /* no seed reaches these bits */
    c->way = (uint32_t)way;
    int rc = set_options(c, index, count, values);
    if (rc < 0) {
        atomo__free(c);
        return rc;
    }
    *out = c;
    return ATOMO_OK;
}

static void part_free(atomo__part *p)
{
    if (!p) return;
    if (p->state && p->codec->compressor->stop) p->codec->compressor->stop(p);
    atomo__free(p->residual);
    atomo__free(p->kept);
    atomo__free(p->before);
    atomo__free(p->state);
    atomo__free(p);
}

atomo_codec *atomo__codec_hold(atomo_codec *c)
{
    c->refs++;
    return c;
}

void atomo_codec_free(atomo_codec *c)
{
    if (!c || --c->refs > 0) return;
    for (int i = 0; i < c->parts; i++) part_free(c->part[i]);
    atomo__free(c->segment);
    atomo__free(c->scratch);
    atomo__free(c->own_name);
    atomo__free(c->sent);
    atomo__free(c);
}

atomo__part *atomo__part_of(const atomo_codec *c, int tensor)
{
    return tensor >= 1 && tensor <= c->parts ? c->part[tensor - 1] : NULL;
}

/* Room for tensor numbers up to `want`: one block holds the three arrays. */
static int grow(atomo_codec *c, int want)
{
    if (want > c->part_room) {
        size_t size = (size_t)ATOMO_MAX(want, 2 * c->part_room);
        atomo__segment *segment;
        ATOMO_TRY(atomo__calloc((void **)&segment, (sizeof *segment + 2 * sizeof(atomo__part *)) * size));
        atomo__part **part = (atomo__part **)(segment + size);
        if (c->parts) memcpy(part, c->part, sizeof *part * (size_t)c->parts);
        atomo__free(c->segment);
        c->segment = segment;
        c->part = part;
        c->order = part + size;
        c->part_room = (int)size;
    }
    c->parts = ATOMO_MAX(c->parts, want);
    return ATOMO_OK;
}

/* 16 bits over what the meaning of a body depends on: the name, the options but the budget's, the shape, the fold, the
 * way. */
static uint32_t hash_of(const atomo__part *p)
{
    const atomo_codec *c = p->codec;
    int first = c->atoms ? c->own_options : 0;
    double rows = (double)p->custom_rows;
    uint32_t h = atomo__crc32(0, c->name, strlen(c->name));
    if (p->as_another) {
        h = atomo__crc32(h, p->atoms->name, strlen(p->atoms->name));
        h = atomo__crc32(h, p->own, sizeof p->own);
    }
    h = atomo__crc32(h, c->option + first, sizeof(double) * (size_t)(c->options - first));
    h = atomo__crc32(h, p->shape, sizeof(double) * (size_t)p->ndim);
    h = atomo__crc32(h, &rows, sizeof rows);
    if (c->way) h = atomo__crc32(h, &c->way, sizeof c->way);
    if (c->scaled && !c->feedback) h = atomo__crc32(h, "factor", 6);
    return (h ^ h >> 16) & 0xFFFF;
}

static int describe(atomo__part *p, const char *name, double custom_rows)
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

/* What a tensor is coded with in place of the codec's own atoms and options; atoms NULL: those. */
typedef struct {
    const struct atomo_atoms *atoms;
    double option[ATOMO__MAX_OPTIONS];
} replacement;

static int part_new(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows, const char *name,
                    const replacement *as, atomo__part **out)
{
    atomo__part *p;
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
    int rc = describe(p, name, custom_rows);
    if (rc == 0) rc = c->compressor->plan(p);
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
    if (rc == 0 && c->compressor->start) rc = c->compressor->start(p);
    if (rc < 0) {
        part_free(p);
        return rc;
    }
    p->hash = hash_of(p);
    *out = p;
    return ATOMO_OK;
}

static int plan_part(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows, const char *name,
                     const replacement *as)
{
    ATOMO_REQUIRE(tensor >= 1 && tensor <= MAX_TENSORS, ATOMO_EARG, "%s: tensor number %d, expected 1 to %d", c->name,
                  tensor, MAX_TENSORS);
    ATOMO_REQUIRE(c->busy == 0, ATOMO_EARG,
                  "%s: plan: tensor %d while an exchange codes with it; finish() the step first", c->name, tensor);
    ATOMO_REQUIRE(ndim >= 0 && ndim <= ATOMO_MAX_DIM, ATOMO_ESHAPE,
                  "%s: tensor %d has %d dimensions, at most %d are possible", c->name, tensor, ndim, ATOMO_MAX_DIM);
    atomo__part *p;
    ATOMO_TRY(part_new(c, tensor, ndim, shape, custom_rows, name, as, &p));
    int rc = grow(c, tensor);
    if (rc < 0) {
        part_free(p);
        return rc;
    }
    if (c->part[tensor - 1]) c->entries -= (double)c->part[tensor - 1]->n;
    part_free(c->part[tensor - 1]);
    c->part[tensor - 1] = p;
    c->entries += (double)p->n;
    return ATOMO_OK;
}

int atomo_codec_plan(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows, const char *name)
{
    return plan_part(c, tensor, ndim, shape, custom_rows, name, &(replacement){.atoms = NULL});
}

/* The atom set called `name` with option values in the order of its compressor's table. */
static int find_replacement(const atomo_codec *c, const char *name, int count, const double *values, replacement *out)
{
    const struct atomo_compressor *k;
    int i = 0;
    *out = (replacement){.atoms = atomo__atoms_named("dense"), .option = {32}};
    if (strcmp(name, "none") == 0) return ATOMO_OK;
    while (atomo__registry_entry(i, &k, &out->atoms) == ATOMO_OK && out->atoms && strcmp(out->atoms->name, name) != 0)
        i++;
    ATOMO_REQUIRE(out->atoms, ATOMO_EARG, "%s: '%s' cannot stand in for it: expected a set of atoms, or none", c->name,
                  name);
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
                  "%s: it takes no atoms, so no tensor can be coded with others", c->name);
    replacement as;
    ATOMO_TRY(find_replacement(c, atoms, count, values, &as));
    ATOMO_REQUIRE(!as.atoms->choose || c->budget_atoms == 0, ATOMO_EARG,
                  "%s: %s shares bytes, not atoms: give ratio or bytes", c->name, atoms);
    return plan_part(c, tensor, ndim, shape, custom_rows, label, &as);
}

int atomo_codec_is_planned(const atomo_codec *c, int tensor, int ndim, const double *shape)
{
    const atomo__part *p = atomo__part_of(c, tensor);
    return p && p->ndim == ndim && (ndim == 0 || memcmp(p->shape, shape, sizeof(double) * (size_t)ndim) == 0);
}

double atomo_codec_wire_max(const atomo_codec *c, int tensor)
{
    double bytes = 0;
    for (int i = 1; i <= c->parts; i++)
        if (c->part[i - 1] && (tensor == 0 || tensor == i))
            bytes += (double)(c->part[i - 1]->body_max + ATOMO__FRAME_MAX);
    return bytes;
}

int atomo_codec_set_budget(atomo_codec *c, double atoms, double ratio, double bytes)
{
    ATOMO_REQUIRE(c->compressor->measure, ATOMO_EARG, "%s: it takes no budget", c->name);
    int given = (atoms > 0 && isfinite(atoms)) + (ratio > 0 && isfinite(ratio)) + (bytes > 0 && isfinite(bytes));
    ATOMO_REQUIRE(given == 1 && atoms + ratio + bytes == ATOMO_MAX(atoms, ATOMO_MAX(ratio, bytes)), ATOMO_EARG,
                  "%s: budget atoms=%g, ratio=%g, bytes=%g: expected one above 0 and the others 0", c->name, atoms,
                  ratio, bytes);
    bool chooses = c->atoms && c->atoms->choose;
    for (int i = 0; i < c->parts; i++) {
        const atomo__part *p = c->part[i];
        chooses = chooses || (p && p->atoms && p->atoms->choose);
    }
    ATOMO_REQUIRE(!(chooses && atoms > 0), ATOMO_EARG,
                  "%s: budget atoms=%g: an atom of one family is not one of another; give ratio or bytes", c->name,
                  atoms);
    c->budget_atoms = atoms;
    c->budget_ratio = ratio;
    c->budget_bytes = bytes;
    return ATOMO_OK;
}

int atomo_codec_reserve(atomo_codec *c, double entries, double bytes)
{
    ATOMO_REQUIRE(entries >= 0 && bytes >= 0 && isfinite(entries) && isfinite(bytes), ATOMO_EARG,
                  "%s: reserve: %g entries and %g bytes, expected numbers >= 0", c->name, entries, bytes);
    c->other_entries = entries;
    c->other_bytes = bytes;
    return ATOMO_OK;
}

int atomo__refuse_nonfinite(const atomo__part *part, const float *g)
{
    int64_t bad = 0, first = 0;
    for (int64_t i = 0; i < part->n; i++)
        if (!isfinite(g[i]) && bad++ == 0) first = i;
    return atomo__fail(ATOMO_ENONFINITE,
                       "%s: gradient of tensor %s: %.0f entries are NaN or Inf, the first is number %.0f",
                       part->codec->name, part->name, (double)bad, (double)first + 1);
}

const char *atomo_codec_family(const atomo_codec *c, int tensor)
{
    const atomo__part *p = atomo__part_of(c, tensor);
    return p && p->atoms && p->atoms->family ? p->atoms->family(p) : "";
}

void atomo_codec_get_stats(const atomo_codec *c, int tensor, atomo_codec_stats *out)
{
    const atomo__part *p = atomo__part_of(c, tensor);
    if (tensor == 0)
        *out = c->stats;
    else if (p)
        *out = (atomo_codec_stats){p->nbytes, p->expected, p->sent, p->variance, p->square, p->T};
    else
        memset(out, 0, sizeof *out);
}
