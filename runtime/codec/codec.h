/* codec.h - stages 4 to 6 of the path: codecs, the plans of their tensors, and a step. Private.
 *
 *   codec   a compressor with its options; holds one plan per tensor
 *   plan    what is fixed for one tensor: shape, sizes, state; made once, no allocation after
 *   segment what the budget sees of a plan: coefficients and the price of an atom, in bits
 *
 * descriptor.h says what a compressor and an atom set are.
 */
#ifndef ATOMO_CODEC_H
#define ATOMO_CODEC_H

#include "codec/descriptor.h"
#include "coding/messages.h"
#include "sampling/sampling.h"
#include "tensor/tensor.h"

/* ---- plans ---- */
enum { ATOMO__MAX_OPTIONS = 24 };
struct atomo__plan {
    const struct atomo_codec *codec;
    const struct atomo_atoms *atoms;    /* NULL where the compressor takes none */
    const struct atomo__stages *stages; /* the atoms', or where there are none the compressor's */
    int tensor;                         /* 1-based */
    char name[64];
    int ndim;
    double shape[ATOMO_MAX_DIM];
    int64_t n;
    int64_t custom_rows;            /* fold = a Lua function: its rows; 0 else */
    const double *option;           /* the codec's values, or own */
    double own[ATOMO__MAX_OPTIONS]; /* of a tensor planned as another (plan_as) */
    bool as_another;
    float *residual;                      /* [n] with ef=true: in a step what it has become, to be encoded; else NULL */
    float *kept;                          /* [n] what has not been sent before this step: undo.c swaps the two */
    bool elsewhere;                       /* what decodes is no gradient yet (list.c): Lua makes its dense form */
    int factors;                          /* an atom's, of those made elsewhere; set by plan_list, 0 before */
    int64_t factor_width[3];              /* entries of each */
    size_t body_max, scratch, state_size; /* bytes, set by plan */
    void *state;
    void *before;  /* the plan and its state as they were before this step, where open (undo.c) */
    bool open;     /* this step has changed it, or may have */
    uint32_t hash; /* of shape, codec and options, 16 bits */
    /* set by measure */
    atomo__segment segment;
    double fixed_bits;                /* of the body, beyond the priced atoms */
    double square;                    /* ||g||^2 */
    double anchored;                  /* tau of the last refine */
    double priced_unit, priced_fixed; /* set by price: the two again, at the last solution */
    double weight;                    /* spectral: what sizes are multiplied by in the budget (auto); 0: 1 */
    int pick, side[2]; /* of atoms that choose: what was chosen; below and above the T found (step_budget.c) */
    bool settled;      /* and that it stays so until the next measure */
    bool searched;     /* all that it could choose was measured */
    /* of the streaming form (stream.c) */
    double planned;     /* bits at the T that the last step called for; 0: not known */
    double noted_fixed; /* of this step: bits beyond the atoms */
    bool noted;         /* it is of this step */
    /* set by encode */
    double T, expected, sent, variance, nbytes;
};

/* Stages that may be absent. */
void atomo__stage_stop(atomo__plan *plan);
int atomo__stage_refine(atomo__plan *plan, const float *g);
void atomo__stage_guess(atomo__plan *plan, double bits);
void atomo__stage_price(atomo__plan *plan, double T);

/* Messages of one tensor that are decoded one after the other (atomo_codec_sum): coefficients in one basis are added up
 * in the scratch, and transformed once. */
typedef struct atomo__pending {
    int tensor;       /* whose messages; 0: nothing is added up */
    bool full;        /* the scratch holds coefficients of `plan` */
    atomo__plan plan; /* a copy: its state says which basis it is */
} atomo__pending;

struct atomo__context {      /* what an encode or decode works with */
    void *scratch;           /* taken with atomo__room */
    const void **held;       /* the state of the basis whose coefficients are in it; NULL: nobody asks */
    bool next;               /* of a measure: this tensor's encode comes next, so what is held will be found */
    atomo__pending *pending; /* NULL: every message is added to acc at once */
    atomo_stream stream;     /* seed, step, rank, tensor; purpose is set by the user */
    bool fixed_count;        /* systematic sampling of entries */
    bool fixed_few;          /* systematic sampling of svd, rows and atoms made in Lua: a tensor sends few of them */
};

/* The scratch; whatever it held is gone. */
static inline void *atomo__room(const atomo__context *c)
{
    if (c->held) *c->held = NULL;
    return c->scratch;
}

/* ---- what is learnt from earlier steps, as bytes (learnt.c) ---- */
/* Goes over what of a plan or a codec outlives a step, always the same stretches in the same order: to count their
 * bytes, to copy them out, or to copy bytes in. */
struct atomo__learnt_copy {
    enum { ATOMO__COUNT, ATOMO__COPY_OUT, ATOMO__COPY_IN } way;
    uint8_t *at; /* NULL where it counts */
    size_t size; /* gone over so far */
    bool bad;    /* of bytes copied in: values that no step could have left */
};
void atomo__learnt_bytes(atomo__learnt_copy *copy, void *data, size_t n);
void atomo__learnt_doubles(atomo__learnt_copy *copy, double *x, size_t n); /* NaN is bad */
void atomo__learnt_plan(atomo__learnt_copy *copy, atomo__plan *plan);      /* what any plan has: prices and the like */

/* Where a compressor takes atoms, its options begin with these. */
enum { ATOMO__BUDGET_ATOMS, ATOMO__BUDGET_RATIO, ATOMO__BUDGET_BYTES, ATOMO__SAMPLING };
enum { ATOMO__SAMPLING_AUTO, ATOMO__BERNOULLI, ATOMO__SYSTEMATIC };
struct atomo_codec {
    _Atomic int refs, busy; /* who holds it; jobs under way that code with it */
    const struct atomo_compressor *compressor;
    const struct atomo_atoms *atoms; /* or NULL */
    const char *name;
    char *own_name; /* what name is after a rename, else NULL */
    uint32_t id;    /* of the name, 8 bits, for the frame */
    double option[ATOMO__MAX_OPTIONS];
    int own_options, options;                        /* the compressor's; all: the atom set's follow, then ef */
    bool feedback;                                   /* ef=true */
    bool scaled;                                     /* a body ends with a factor (form.c) */
    double budget_atoms, budget_ratio, budget_bytes; /* one is > 0, or none (no measure) */
    uint32_t seed[2], way;                           /* seed: the way is in it */
    atomo__plan **plan;                              /* [plans], NULL where a number is not planned */
    int plans, plan_room;
    void *scratch;
    size_t scratch_size;
    float *sent; /* [sent_room]: what a message decodes to (form.c); NULL where nobody asks */
    int64_t sent_room;
    atomo__segment *segment;           /* [plan_room], for the solver */
    atomo__plan **order;               /* [plan_room], the tensors of the step being encoded */
    double entries;                    /* of all planned tensors */
    double other_entries, other_bytes; /* of the step, beside them (reserve) */
    double energy; /* mean square of an entry, of all tensors of this step or (streamed) the last; 0: not known */
    struct atomo__price { /* the streaming form */
        bool open;
        uint32_t step, rank;
        double T;                  /* that the last step called for; 0: not known */
        double target, aimed;      /* the step's budget in bits; and the last one's */
        double owed;               /* what the next step may spend beyond the budget, as a share of it */
        double real;               /* bits sent over bits by the model, over the last steps; 0: not known */
        double planned, scale;     /* planned bits of all tensors; times scale: what this step may spend */
        double planned_left, left; /* of the tensors still to come; what is not spent */
        double sent, modelled;     /* bits */
        double drift, weight; /* log of the T called for over T, weighted by planned bits, summed; and the weights */
    } stream;
    atomo__pending pending;
    atomo_codec_stats stats;
    struct { /* the codec before this step (undo.c) */
        struct atomo__price stream;
        double energy;
        atomo_codec_stats stats;
    } before;
};

/* A codec has a budget where it has atoms. */
static inline bool atomo__has_budget(const atomo_codec *c)
{
    return c->atoms != NULL;
}

/* What an encode or decode of this plan works with: the codec's scratch, the plan's stream. */
atomo__context atomo__context_of(const atomo__plan *p, uint32_t rank, uint32_t step);
void atomo__stats_add(atomo_codec *c, const atomo__plan *p);
atomo_codec *atomo__codec_hold(atomo_codec *c);                /* returns it; every hold wants an atomo_codec_free */
atomo__plan *atomo__plan_of(const atomo_codec *c, int tensor); /* NULL where it is not planned */
void atomo__plan_free(atomo__plan *plan);                      /* NULL is fine */
/* ---- one budget over a step (step_budget.c) ---- */
atomo__frame atomo__frame_of(const atomo__plan *p, uint32_t rank, uint32_t step);
/* Bits that tensors of `entries` entries may take together; 0: the budget is in atoms. */
double atomo__target_bits(const atomo_codec *c, double entries);
/* Bits of a message beyond its priced atoms: the frame around such a body, and the body's fixed part. */
double atomo__overhead(const atomo__plan *p, uint32_t rank, uint32_t step, double body_bits);
/* Sets T of measured plans: of one, for the paper's budget of expected atoms; of all, for a target in bits. */
void atomo__solve_atoms(const atomo_codec *c, atomo__plan *p);
/* Of a plan in a stream, just searched: the family that is best at the length that the present one has at T. */
void atomo__choose_again(atomo_codec *c, atomo__plan *p, uint32_t rank, uint32_t step, double T);
void atomo__solve_shared(atomo_codec *c, int count, atomo__plan **plan, uint32_t rank, uint32_t step, double target);

/* ---- the streaming form's budget (stream.c) ---- */
void atomo__price_begin(atomo_codec *c);                   /* a step, whose key is set */
void atomo__price_set(atomo_codec *c, atomo__plan *plan);  /* T of a measured plan */
void atomo__price_note(atomo_codec *c, atomo__plan *plan); /* what its coefficients call for, at that T */
void atomo__price_sent(atomo_codec *c, double bits);
void atomo__price_end(atomo_codec *c);
double atomo__entries_that_came(const atomo_codec *c); /* of the tensors that this step has priced so far */

/* ---- steps that can be given up (undo.c) ---- */
/* What a step may change is kept beside it: of every plan that it touches, from atomo__plan_open on, and of the codec,
 * from atomo__undo_note on. Commit keeps the changes, undo takes them back: bits of later steps do not tell that the
 * step was tried. */
size_t atomo__undo_size(const atomo__plan *plan); /* of plan->before */
void atomo__plan_open(atomo__plan *plan);         /* before anything of it changes; again in one step: nothing */
void atomo__undo_note(atomo_codec *c);
void atomo__undo_commit(atomo_codec *c);
void atomo__undo(atomo_codec *c);

/* ---- error feedback (error_feedback.c): ef=true of any compressor ---- */
extern const struct atomo__option atomo__feedback_option;
int atomo__feedback_plan(atomo__plan *plan); /* the residual, zero */
/* residual = kept + g; ENONFINITE where g or the sum is not finite. The residual is what is then encoded. */
int atomo__feedback_add(atomo__plan *plan, const float *g);
/* residual -= what the body just written decodes to. */
int atomo__feedback_subtract(atomo__plan *plan, const uint8_t *body, size_t size, atomo__context *c);

/* ---- what every body ends as (form.c): a factor under error feedback, floats where it would be as long ---- */
size_t atomo__form_bytes(const atomo_codec *c);          /* of a body, beside what the compressor writes */
int atomo__form_plan(atomo_codec *c, atomo__plan *plan); /* after the compressor's plan */
/* Ends the body just written: the residual, the factor, the dense form. */
int atomo__form_close(atomo__plan *plan, atomo__writer *w, atomo__context *c);
/* decode_add of a body as it came: factor and dense form included. */
int atomo__form_decode(const atomo__plan *plan, atomo__reader *body, atomo__context *c, float scale, float *acc);

/* Text of a non-finite gradient: names the tensor, the count and the first position. */
int atomo__refuse_nonfinite(const atomo__plan *plan, const float *g);

#endif
