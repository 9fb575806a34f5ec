/* descriptor.h - the descriptors of atom sets and compressors: a name, options, and one table of stages that both
 * share. Private.
 *
 * Each file of runtime/atoms or runtime/compress ends in its descriptor, which the build finds by the file's name
 * (cmake/generate.cmake). An atom set has all stages. A compressor without atoms has no budget, so it has only plan,
 * start, stop, encode and decode_add. compress/atomo.c has no stages; its options come before those of every atom set.
 */
#ifndef ATOMO_DESCRIPTOR_H
#define ATOMO_DESCRIPTOR_H

#include "coding/messages.h"
#include "core/core.h"

typedef struct atomo__plan atomo__plan;               /* codec.h */
typedef struct atomo__context atomo__context;         /* codec.h */
typedef struct atomo__learnt_copy atomo__learnt_copy; /* codec.h */

/* ---- options: a table per descriptor, read by Lua ---- */
struct atomo__option {
    const char *key;
    int type;                  /* ATOMO_OPTION_* */
    double standard, min, max; /* standard: the default, for an enum its index in choices; NAN: not set */
    const char *choices;       /* of an enum, or the allowed values of an int: "out|paper", "32|16|8"; else NULL */
    const char *help;
};

/* ---- stages; an int result is a status ---- */
struct atomo__stages {
    int (*plan)(atomo__plan *plan);  /* sets body_max, scratch and state_size */
    int (*start)(atomo__plan *plan); /* fills the state, which is all zeros; NULL: it stays so */
    void (*stop)(atomo__plan *plan); /* frees what start allocated, also after start failed; NULL: nothing to free */
    /* The next four are for the budget. A compressor without a budget leaves all of them NULL. */
    int (*measure)(atomo__plan *plan, const float *g, atomo__context *c); /* sets segment, fixed_bits, square */
    /* replaces estimates of measure by exact values around plan->T; NULL: measure is exact */
    int (*refine)(atomo__plan *plan, const float *g);
    void (*guess)(atomo__plan *plan, double bits); /* sets a first price for a body of `bits` bits; NULL: not needed */
    void (*price)(atomo__plan *plan, double T);    /* sets priced_unit, priced_fixed for T; NULL: as measure set them */
    /* draws at plan->T and writes; sets expected, sent, variance; if there is no measure, ENONFINITE for NaN or Inf */
    int (*encode)(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
    /* acc += scale * ghat; EFORMAT, without an error text, for bytes that encode cannot have written */
    int (*decode_add)(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);
    /* decode_add for the next n entries, acc [n]; a body takes body_max bytes then. NULL: bodies are decoded whole */
    int (*decode_part)(atomo__reader *r, int64_t n, float scale, float *acc);
    void (*settle)(atomo__context *c, float *acc); /* acc += the sum that decode_add left in c->pending; NULL: none */
};

/* Makes the plan use one of the families that it was measured for: number `pick`, or with ATOMO__BEST the one of least
 * variance + T^2 bits. Sets plan->pick and returns the variance (auto adds other costs to it), or NAN if there is no
 * family `pick` or it was not measured. */
enum { ATOMO__BEST = -1, ATOMO__MAX_FAMILIES = 16 };
typedef double atomo__choose_fn(atomo__plan *plan, double T, int pick);

/* ---- atom sets: runtime/atoms/NAME.c, `const struct atomo_atoms atomo_atoms_NAME` ---- */
struct atomo_atoms {
    const char *name, *summary, *source;
    const struct atomo__option *options; /* ends with a NULL key */
    struct atomo__stages stages;
    /* fixed bases (atoms/common/basis.h): transforms x [n] in place, orthonormal; work: scratch [n + 2]; NULL: no basis
     */
    void (*transform)(const atomo__plan *plan, float *x, bool inverse, float *work);
    atomo__choose_fn *choose;                              /* sets that choose among families (auto); NULL: others */
    const char *(*family)(const atomo__plan *plan);        /* text of the chosen family; NULL if choose is */
    double (*bound)(const atomo__plan *plan, double bits); /* as atomo_codec_bound, for a body of `bits`; NULL: none */
    void (*learnt)(atomo__plan *plan, atomo__learnt_copy *copy); /* visits state that outlives a step; NULL: none */
    const char *(*missing)(void);                                /* as in atomo_compressor */
    bool together; /* its draws can cancel between ranks (sampling/strata.c): it has option together */
    bool hidden;   /* not a compressor by itself, only a family of auto, or "none" in `overrides` */
};

/* ---- compressors: runtime/compress/NAME.c, `const struct atomo_compressor atomo_compressor_NAME` ---- */
/* A linear compressor's messages can be added before they are decoded, so an all-reduce can carry them
 * (exchange/bucket_linear.c): `expand` of the sum of all ranks' `project` results is the sum of the ranks' decoded
 * messages.
 */
struct atomo__linear {
    int rounds;                     /* all-reduces, 1 or 2; values of the second depend on the sums of the first */
    bool largest;                   /* the first of two rounds takes the maximum over the ranks instead of the sum */
    const struct atomo__half *half; /* format of the last round's sums on the wire (half.h); NULL: f32 */
    int64_t (*size)(const atomo__plan *plan, int round); /* floats of a round, round 0 or 1 */
    /* out [size] = this rank's values for a round; before: the first round's sums, which it may overwrite. ENONFINITE.
     */
    int (*project)(atomo__plan *plan, int round, const float *g, float *before, int ranks, atomo__context *c,
                   float *out);
    /* acc += scale * the gradient that the sums of the first and last round stand for (one round: both are the same) */
    int (*expand)(const atomo__plan *plan, const float *first, const float *last, int ranks, float scale,
                  atomo__context *c, float *acc);
    /* takes over, when the step is committed, the state for the next step from the last round's sums; NULL: none */
    void (*settle)(atomo__plan *plan, const float *last);
};

struct atomo_compressor {
    const char *name, *summary, *source;
    const struct atomo__option *options;
    struct atomo__stages stages;
    bool unbiased;
    bool contracts;   /* E||x - Q(x)|| < ||x||, so error feedback needs no factor (form.c) */
    bool dense;       /* its body is always the n floats */
    bool together;    /* its draws can cancel between ranks, as in atomo_atoms */
    bool takes_atoms; /* an atom set's options follow its own, and it goes by the set's name (compress/atomo.c) */
    bool (*biased)(const double *option); /* true for options that make an unbiased compressor biased; NULL: none do */
    /* turns acc, the sum of all ranks' messages times scale, into the update; NULL: acc is the update */
    void (*finish)(const atomo__plan *plan, float scale, float *acc);
    /* returns state [*n] on which the next message depends and that goes into checkpoints; NULL: there is none */
    float *(*memory)(const atomo__plan *plan, int64_t *n);
    /* returns why this machine or build cannot run it ("" if it can): a library is missing (core/packages.h); NULL: it
     * needs no library */
    const char *(*missing)(void);
    const struct atomo__linear *linear; /* NULL: messages cannot be added */
};

extern const struct atomo_atoms *const atomo_atoms_table[];
extern const struct atomo_compressor *const atomo_compressor_table[];
/* Sets *compressor and *atoms to the entry number i: first the atom sets, each with the compressor that takes atoms,
 * then the other compressors with *atoms NULL. EARG, without a text, past the end. */
int atomo__registry_entry(int i, const struct atomo_compressor **compressor, const struct atomo_atoms **atoms);
/* Returns the atom set of that name, hidden ones included; NULL if there is none. */
const struct atomo_atoms *atomo__atoms_named(const char *name);
int atomo__option_count(const struct atomo__option *o);

#endif
