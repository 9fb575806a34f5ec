/* descriptor.h - what an atom set and a compressor are: a name, options, and one table of stages that both share.
 * Private.
 *
 * A file of runtime/atoms or runtime/compress ends in its descriptor, which the build finds by the file's name
 * (cmake/generate.cmake). An atom set has all stages; a compressor of a whole tensor has no budget, so it has those of
 * plan, start, stop, encode and decode_add. compress/atomo.c has no stages: it lends atom sets its options.
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
    double standard, min, max; /* enum: standard is the index in choices; NAN: not set */
    const char *choices;       /* enum, or the only values allowed of an int: "out|paper", "32|16|8" */
    const char *help;
};

/* ---- stages ---- */
struct atomo__stages {
    int (*plan)(atomo__plan *plan);  /* sets body_max, scratch and state_size */
    int (*start)(atomo__plan *plan); /* fills the zeroed state; NULL: it stays zero */
    void (*stop)(atomo__plan *plan); /* frees what start allocated, where start failed, too; NULL: nothing */
    /* of a budget: NULL, all four, for a compressor that has none */
    int (*measure)(atomo__plan *plan, const float *g, atomo__context *c); /* sets segment, fixed_bits, square */
    /* makes exact around plan->T what measure only estimated; NULL: it was exact */
    int (*refine)(atomo__plan *plan, const float *g);
    void (*guess)(atomo__plan *plan, double bits); /* a first price, for a body of about `bits`; NULL: it is fixed */
    void (*price)(atomo__plan *plan, double T);    /* priced_unit, priced_fixed at T; NULL: those of measure */
    /* draws at plan->T and writes; sets expected, sent, variance. Without measure: refuses non-finite gradients. */
    int (*encode)(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
    /* acc += scale * ghat; EFORMAT (without a text) for what encode did not write */
    int (*decode_add)(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);
    void (*settle)(atomo__context *c, float *acc); /* adds to acc what decode_add left in c->pending; NULL: nothing */
};

/* The plan becomes one of the families that it was measured for: number `pick` (NAN where there is none of that number
 * or it was not measured), or with ATOMO__BEST the one of least variance + T^2 bits. Sets plan->pick; returns the
 * variance. (auto may count other things with the variance.) */
enum { ATOMO__BEST = -1, ATOMO__MAX_FAMILIES = 16 };
typedef double atomo__choose_fn(atomo__plan *plan, double T, int pick);

/* ---- atom sets: runtime/atoms/NAME.c, `const struct atomo_atoms atomo_atoms_NAME` ---- */
struct atomo_atoms {
    const char *name, *summary, *source;
    const struct atomo__option *options; /* ends with a NULL key */
    struct atomo__stages stages;
    /* of a fixed basis (atoms/common/basis.h): x [n] in place, orthonormal; work [n + 2] */
    void (*transform)(const atomo__plan *plan, float *x, bool inverse, float *work);
    atomo__choose_fn *choose;                       /* of one of several sets (auto), with family; NULL: none */
    const char *(*family)(const atomo__plan *plan); /* the text of what was chosen */
    void (*learnt)(atomo__plan *plan, atomo__learnt_copy *copy); /* what of the state outlives a step; NULL: nothing */
    bool hidden; /* no compressor of its own: a family of auto, and what `overrides` calls none */
};

/* ---- compressors: runtime/compress/NAME.c, `const struct atomo_compressor atomo_compressor_NAME` ---- */
/* A compressor whose messages can be added before they are decoded, so that an all-reduce can carry them
 * (exchange/bucket_linear.c): the sum of what project makes on every rank, expanded, is the sum of what the ranks'
 * messages decode to.
 */
struct atomo__linear {
    int rounds;                     /* all-reduces, 1 or 2; the second's values depend on the first's sums */
    bool largest;                   /* of two rounds the first wants the largest of the ranks' values, not their sum */
    const struct atomo__half *half; /* the last round's sums travel in 16 bits (half.h); NULL: in f32 */
    int64_t (*size)(const atomo__plan *plan, int round); /* floats */
    /* g's values for a round, out [size]; before: the first round's sums (its own to work in). ENONFINITE. */
    int (*project)(atomo__plan *plan, int round, const float *g, float *before, int ranks, atomo__context *c,
                   float *out);
    /* acc += scale * what the sums of the first and last round stand for (the same where there is one). */
    int (*expand)(const atomo__plan *plan, const float *first, const float *last, int ranks, float scale,
                  atomo__context *c, float *acc);
    /* The step holds, with these last sums: what the next one starts from; NULL: nothing. */
    void (*settle)(atomo__plan *plan, const float *last);
};

struct atomo_compressor {
    const char *name, *summary, *source;
    const struct atomo__option *options;
    struct atomo__stages stages;
    bool unbiased;
    bool contracts;   /* ||x - Q(x)|| < ||x|| in the mean: error feedback takes its messages as they are (form.c) */
    bool dense;       /* its body is the n floats */
    bool takes_atoms; /* its options are followed by those of an atom set, whose name it goes by */
    bool (*biased)(const double *option); /* true for options with which an unbiased one is not; NULL: never */
    /* turns the sum of all ranks' messages, each times scale, into the update; NULL: it is the update */
    void (*finish)(const atomo__plan *plan, float scale, float *acc);
    /* what the next step of a tensor depends on, [n]: goes into checkpoints; NULL: nothing */
    float *(*memory)(const atomo__plan *plan, int64_t *n);
    const struct atomo__linear *linear; /* NULL: messages cannot be added */
};

extern const struct atomo_atoms *const atomo_atoms_table[];
extern const struct atomo_compressor *const atomo_compressor_table[];
/* The i-th name: atom sets (under the compressor that takes them) first, then the other compressors. EARG past the end.
 */
int atomo__registry_entry(int i, const struct atomo_compressor **compressor, const struct atomo_atoms **atoms);
/* The set of that name, hidden ones included; NULL where there is none. */
const struct atomo_atoms *atomo__atoms_named(const char *name);
int atomo__option_count(const struct atomo__option *o);

#endif
