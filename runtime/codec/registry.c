/* registry.c - the list of all compressors and of their options. */
#include "codec/codec.h"
#include <math.h>

/* Atom sets come first, each with the compressor that takes atoms, then the other compressors. */
int atomo__registry_entry(int i, const struct atomo_compressor **compressor, const struct atomo_atoms **atoms)
{
    const struct atomo_compressor *taker = NULL;
    *atoms = NULL;
    for (int j = 0; atomo_compressor_table[j]; j++)
        if (atomo_compressor_table[j]->takes_atoms) taker = atomo_compressor_table[j];
    for (int j = 0; taker && i >= 0 && atomo_atoms_table[j]; j++) {
        if (atomo_atoms_table[j]->hidden) continue;
        if (i-- == 0) {
            *compressor = taker;
            *atoms = atomo_atoms_table[j];
            return ATOMO_OK;
        }
    }
    for (int j = 0; i >= 0 && atomo_compressor_table[j]; j++) {
        if (atomo_compressor_table[j]->takes_atoms) continue;
        if (i-- == 0) {
            *compressor = atomo_compressor_table[j];
            return ATOMO_OK;
        }
    }
    return ATOMO_EARG;
}

const struct atomo_atoms *atomo__atoms_named(const char *name)
{
    int j = 0;
    while (atomo_atoms_table[j] && strcmp(atomo_atoms_table[j]->name, name) != 0) j++;
    return atomo_atoms_table[j];
}

int atomo_codec_count(void)
{
    const struct atomo_compressor *c;
    const struct atomo_atoms *a;
    int n = 0;
    while (atomo__registry_entry(n, &c, &a) == ATOMO_OK) n++;
    return n;
}

int atomo__option_count(const struct atomo__option *o)
{
    int n = 0;
    while (o[n].key) n++;
    return n;
}

static const struct atomo__option together_option = {
    "together", ATOMO_OPTION_BOOL, 1, 0, 1, NULL, "draws cancel between ranks: the mean of their messages varies less"};

/* Sets list to the options that the entry has besides its own, in this order; returns their number. */
static int common_options(const struct atomo_compressor *c, const struct atomo_atoms *a,
                          const struct atomo__option *list[2])
{
    list[0] = &atomo__feedback_option;
    list[1] = &together_option;
    return 1 + (a ? a->together : c->together);
}

/* Returns whether the compressor is unbiased with its default options. */
static bool unbiased(const struct atomo_compressor *c)
{
    double standard[ATOMO__MAX_OPTIONS];
    for (int j = 0; c->options[j].key; j++) standard[j] = c->options[j].standard;
    return c->unbiased && !(c->biased && c->biased(standard));
}

int atomo_codec_about(int i, atomo_codec_info *out)
{
    const struct atomo_compressor *c;
    const struct atomo_atoms *a;
    ATOMO_REQUIRE(i >= 0 && atomo__registry_entry(i, &c, &a) == ATOMO_OK, ATOMO_EARG,
                  "codec_about: there is no compressor number %d", i);
    const struct atomo__option *common[2];
    const int own = atomo__option_count(c->options), more = a ? atomo__option_count(a->options) : 0;
    *out = (atomo_codec_info){.name = a ? a->name : c->name,
                              .summary = a ? a->summary : c->summary,
                              .source = a ? a->source : c->source,
                              .unbiased = unbiased(c),
                              .linear = c->linear != NULL,
                              .options = own + more + common_options(c, a, common)};
    return ATOMO_OK;
}

const char *atomo_codec_missing(int i)
{
    const struct atomo_compressor *c;
    const struct atomo_atoms *a;
    if (i < 0 || atomo__registry_entry(i, &c, &a) < 0) return "there is no such compressor";
    const char *(*missing)(void) = a ? a->missing : c->missing;
    return missing ? missing() : "";
}

int atomo_codec_option(int i, int option, atomo_option_info *out)
{
    const struct atomo_compressor *c;
    const struct atomo_atoms *a;
    ATOMO_REQUIRE(i >= 0 && atomo__registry_entry(i, &c, &a) == ATOMO_OK, ATOMO_EARG,
                  "codec_option: there is no compressor number %d", i);
    const struct atomo__option *common[2];
    const int own = atomo__option_count(c->options), more = a ? atomo__option_count(a->options) : 0;
    const int all = own + more + common_options(c, a, common);
    ATOMO_REQUIRE(option >= 0 && option < all, ATOMO_EARG, "codec_option: option %d, expected 0 to %d", option,
                  all - 1);
    const struct atomo__option *o = option < own          ? &c->options[option]
                                    : option < own + more ? &a->options[option - own]
                                                          : common[option - own - more];
    *out = (atomo_option_info){o->key, o->choices, o->help, o->type, o->standard, o->min, o->max};
    return ATOMO_OK;
}
