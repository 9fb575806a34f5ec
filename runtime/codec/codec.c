/* codec.c - makes codecs from a compressor's name, options and budget; stages 4 to 6 of the path. */
#include "codec/codec.h"
#include "core/packages.h"
#include <math.h>
#include <stdio.h>

enum { MOST_RANKS = 1 << 24 };

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
    const int ef = atomo__feedback_index(c);
    c->feedback = c->option[ef] != 0;
    c->scaled = c->feedback && !c->compressor->contracts;
    c->together = c->options > ef + 1 && c->option[ef + 1] != 0 && !c->feedback;
    if (!c->atoms) return ATOMO_OK;
    const double *o = c->option;
    int given = !isnan(o[ATOMO__BUDGET_ATOMS]) + !isnan(o[ATOMO__BUDGET_RATIO]) + !isnan(o[ATOMO__BUDGET_BYTES]);
    ATOMO_REQUIRE(given <= 1, ATOMO_EARG, "%s: give one budget out of atoms, ratio and bytes", c->name);
    ATOMO_REQUIRE(!c->atoms->choose || isnan(o[ATOMO__BUDGET_ATOMS]), ATOMO_EARG,
                  "%s: atoms=%g: atoms of different families cannot be counted together; give ratio= or bytes=",
                  c->name, o[ATOMO__BUDGET_ATOMS]);
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
    ATOMO_REQUIRE(index >= 0, ATOMO_EARG,
                  "compressor: there is none called '%s', expected a name from atomo_codec_about", name);
    ATOMO_REQUIRE(count <= about.options, ATOMO_EARG, "%s: %d options given, it has %d", name, count, about.options);
    ATOMO_REQUIRE(seed >= 0 && seed <= 0x1p53 && seed == floor(seed), ATOMO_EARG,
                  "%s: seed is %g, expected an integer in 0 .. 2^53", name, seed);
    ATOMO_REQUIRE(way >= 0 && way <= 255, ATOMO_EARG, "%s: way is %d, expected 0 to 255", name, way);
    atomo_codec *c;
    ATOMO_TRY(atomo__calloc((void **)&c, sizeof *c));
    c->refs = c->ranks = 1;
    atomo__registry_entry(index, &c->compressor, &c->atoms);
    c->name = about.name;
    c->id = atomo__crc32(0, c->name, strlen(c->name)) & 255;
    c->own_options = atomo__option_count(c->compressor->options);
    c->options = about.options;
    c->seed[0] = (uint32_t)(uint64_t)seed;
    c->seed[1] = (uint32_t)((uint64_t)seed >> 32) ^ (uint32_t)way << 24; /* seeds <= 2^53 leave these bits 0 */
    c->way = (uint32_t)way;
    int rc = set_options(c, index, count, values);
    if (rc == 0) rc = atomo__need(c->name, c->atoms ? c->atoms->missing : c->compressor->missing);
    if (rc < 0) {
        atomo__free(c);
        return rc;
    }
    *out = c;
    return ATOMO_OK;
}

/* ---- stages that a descriptor may leave out ---- */

void atomo__stage_stop(atomo__plan *plan)
{
    if (plan->stages->stop) plan->stages->stop(plan);
}

int atomo__stage_refine(atomo__plan *plan, const float *g)
{
    return plan->stages->refine ? plan->stages->refine(plan, g) : ATOMO_OK;
}

void atomo__stage_guess(atomo__plan *plan, double bits)
{
    if (plan->stages->guess) plan->stages->guess(plan, bits);
}

void atomo__stage_price(atomo__plan *plan, double T)
{
    plan->priced_unit = plan->segment.unit;
    plan->priced_fixed = plan->fixed_bits;
    if (plan->stages->price) plan->stages->price(plan, T);
}

void atomo__plan_free(atomo__plan *p)
{
    if (!p) return;
    if (p->state) atomo__stage_stop(p);
    atomo__free(p->residual);
    atomo__free(p->kept);
    atomo__free(p->before);
    atomo_tensor_free(p->dense);
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
    if (!c || atomo__objects_kept() || --c->refs > 0) return;
    for (int i = 0; i < c->plans; i++) atomo__plan_free(c->plan[i]);
    atomo__free(c->segment);
    atomo__free(c->scratch);
    atomo__free(c->own_name);
    atomo__free(c->sent);
    atomo__free(c);
}

atomo__plan *atomo__plan_of(const atomo_codec *c, int tensor)
{
    return tensor >= 1 && tensor <= c->plans ? c->plan[tensor - 1] : NULL;
}

double atomo_codec_wire_max(const atomo_codec *c, int tensor)
{
    double bytes = 0;
    for (int i = 1; i <= c->plans; i++)
        if (c->plan[i - 1] && (tensor == 0 || tensor == i))
            bytes += (double)(c->plan[i - 1]->body_max + ATOMO__FRAME_MAX);
    return bytes;
}

int atomo_codec_set_budget(atomo_codec *c, double atoms, double ratio, double bytes)
{
    ATOMO_REQUIRE(atomo__has_budget(c), ATOMO_EARG, "%s: it takes no budget", c->name);
    int given = (atoms > 0 && isfinite(atoms)) + (ratio > 0 && isfinite(ratio)) + (bytes > 0 && isfinite(bytes));
    ATOMO_REQUIRE(given == 1 && atoms + ratio + bytes == ATOMO_MAX(atoms, ATOMO_MAX(ratio, bytes)), ATOMO_EARG,
                  "%s: budget atoms=%g, ratio=%g, bytes=%g: expected one above 0 and the others 0", c->name, atoms,
                  ratio, bytes);
    bool chooses = c->atoms && c->atoms->choose;
    for (int i = 0; i < c->plans; i++) {
        const atomo__plan *p = c->plan[i];
        chooses = chooses || (p && p->atoms && p->atoms->choose);
    }
    ATOMO_REQUIRE(!(chooses && atoms > 0), ATOMO_EARG,
                  "%s: budget atoms=%g: atoms of different families cannot be counted together; give ratio or bytes",
                  c->name, atoms);
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

int atomo_codec_set_ranks(atomo_codec *c, int ranks)
{
    ATOMO_REQUIRE(ranks >= 1 && ranks <= MOST_RANKS, ATOMO_EARG, "%s: ranks is %d, expected 1 to %d", c->name, ranks,
                  MOST_RANKS);
    c->ranks = ranks;
    return ATOMO_OK;
}

int atomo__refuse_nonfinite(const atomo__plan *plan, const float *g)
{
    int64_t bad = 0, first = 0;
    for (int64_t i = 0; i < plan->n; i++)
        if (!isfinite(g[i]) && bad++ == 0) first = i;
    return atomo__fail(
        ATOMO_ENONFINITE,
        "%s: gradient of tensor %s: %.0f entries are NaN or Inf, the first is number %.0f, expected none",
        plan->codec->name, plan->name, (double)bad, (double)first + 1);
}

const char *atomo_codec_family(const atomo_codec *c, int tensor)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    return p && p->atoms && p->atoms->family ? p->atoms->family(p) : "";
}

static double bound_of(const atomo__plan *p)
{
    return p && p->atoms && p->atoms->bound ? p->atoms->bound(p, 8 * p->nbytes) : 0;
}

double atomo_codec_bound(const atomo_codec *c, int tensor)
{
    double all = 0;
    bool any = false;
    if (tensor != 0) return bound_of(atomo__plan_of(c, tensor));
    for (int i = 0; i < c->plans; i++) {
        const double one = bound_of(c->plan[i]);
        any |= one > 0;
        all += one > 0 ? one : c->plan[i] ? c->plan[i]->variance : 0;
    }
    return any ? all : 0;
}

void atomo_codec_get_stats(const atomo_codec *c, int tensor, atomo_codec_stats *out)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    if (tensor == 0)
        *out = c->stats;
    else if (p)
        *out = (atomo_codec_stats){p->nbytes, p->expected, p->sent, p->variance, p->square, p->T};
    else
        memset(out, 0, sizeof *out);
}
