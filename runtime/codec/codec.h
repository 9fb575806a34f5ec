/* codec.h - stages 4 to 6 of the path: codecs, the plans of their tensors, and the coding of a step. Private.
 *
 *   codec   a compressor with its options; owns one plan per tensor
 *   plan    shape, sizes and state of one tensor; made once, and nothing is allocated after that
 *   segment the part of a plan that the budget reads: coefficients and the price of an atom, in bits
 *
 * descriptor.h describes compressors and atom sets.
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
    const struct atomo_atoms *atoms;    /* NULL: the compressor takes no atoms */
    const struct atomo__stages *stages; /* the atom set's, or the compressor's if atoms is NULL */
    int tensor;                         /* 1-based */
    char name[64];                      /* for error texts: the tensor's name or number, and its shape */
    int ndim;
    double shape[ATOMO_MAX_DIM];
    int64_t n;                      /* entries */
    int64_t custom_rows;            /* rows of the matrix if fold is a Lua function; 0: option fold decides */
    const double *option;           /* values of the atom set's options: the codec's, or `own` */
    double own[ATOMO__MAX_OPTIONS]; /* option values of a tensor planned by plan_as */
    bool as_another;                /* planned by plan_as, with another atom set than the codec's */
    float *residual;         /* [n], ef=true: kept + gradient, which is encoded, then less what was sent; else NULL */
    float *kept;             /* [n], ef=true: the residual before this step; undo.c swaps the two */
    atomo_tensor *dense;     /* [shape] row-major copy of a gradient or average of other strides; NULL: none came yet */
    const float *given;      /* [n] the gradient being encoded: the caller's memory, or dense */
    int place;               /* index in codec->order in the last encode that had this tensor */
    bool elsewhere;          /* messages decode to atoms (list.c), from which Lua computes the gradient */
    int factors;             /* 1 to 3 factors of each atom if `elsewhere`, set by plan_list; else 0 */
    int64_t factor_width[3]; /* entries of each factor */
    int factor_bits[3];      /* bits of a factor's entry in messages; 0: integers, sent exactly */
    size_t body_max, scratch, state_size; /* bytes, set by the plan stage */
    const char *variant; /* set by the plan stage: makes the hash differ from that of other builds; NULL: none */
    void *state;         /* [state_size] of the atom set or compressor */
    void *before;        /* copy of the plan and its state from before this step, valid if open (undo.c) */
    bool open;           /* this step has changed the plan, or may have */
    bool pushed;         /* its message of the streamed step has been written */
    uint32_t hash;       /* of shape, codec and options, 16 bits */
    int place_in_bundle; /* from 1 on (bundle.c); 0: messages are sent in frames of their own */
    /* set by measure */
    atomo__segment segment;
    double fixed_bits;                /* bits of the body in addition to the priced atoms */
    double square;                    /* ||g||^2 */
    double anchored;                  /* tau at the last refine */
    double priced_unit, priced_fixed; /* set by price: bits of an atom and fixed bits at the last T; 0: none yet */
    double weight;                    /* set by auto: factor of spectral magnitudes in the budget; 0: 1 */
    int pick, side[2]; /* of sets that choose: the family; the choices below and above a jump (step_budget.c) */
    bool settled;      /* the choice is fixed until the next measure */
    bool searched;     /* every family has been measured on this gradient */
    /* of the streaming form (stream.c) */
    double planned;     /* bits at the T that would have met the last step's budget; 0: not known */
    double noted_fixed; /* bits of this step in addition to the atoms, valid if noted */
    bool noted;         /* the tensor was priced in this step */
    /* set by encode: price, atoms expected and sent, variance, bytes with the frame */
    double T, expected, sent, variance, nbytes;
};

/* Call a stage that the descriptor may leave out. */
void atomo__stage_stop(atomo__plan *plan);
int atomo__stage_refine(atomo__plan *plan, const float *g);
void atomo__stage_guess(atomo__plan *plan, double bits);
void atomo__stage_price(atomo__plan *plan, double T);

/* The sum of a tensor's messages (atomo_codec_sum): coefficients in one fixed basis are added up in the scratch memory,
 * and transformed once by the settle stage. */
typedef struct atomo__pending {
    int tensor;       /* number of the tensor whose messages are summed; 0: none */
    bool full;        /* the scratch memory holds coefficients of `plan` */
    atomo__plan plan; /* a copy, whose state says which basis the coefficients are in */
} atomo__pending;

struct atomo__context { /* the arguments and scratch memory of one encode or decode */
    void *scratch;      /* use it by atomo__claim_scratch */
    const void **held;  /* *held: state of the basis whose coefficients are in scratch, NULL: none; NULL: not tracked */
    bool next;          /* in measure: this tensor is encoded next, so its coefficients may stay in scratch */
    atomo__pending *pending; /* NULL: every message is added to acc at once */
    atomo_stream stream;     /* seed, step, rank, tensor; the function that draws sets purpose */
    atomo__strata strata;    /* of this rank's draws, for encode */
    bool fixed_count;        /* systematic sampling of entries */
    bool fixed_few;          /* systematic sampling of svd, rows and atoms made in Lua, of which a tensor sends few */
};

/* Returns the scratch memory for new content, and records that it no longer holds coefficients. */
static inline void *atomo__claim_scratch(const atomo__context *c)
{
    if (c->held) *c->held = NULL;
    return c->scratch;
}

/* ---- the state learnt from earlier steps, as bytes (learnt.c) ---- */
/* One function visits the state of a plan or codec that outlives a step, always the same fields in the same order.
 * `way` says whether it counts their bytes, copies them to `at`, or copies them from `at`. */
struct atomo__learnt_copy {
    enum { ATOMO__COUNT, ATOMO__COPY_OUT, ATOMO__COPY_IN } way;
    uint8_t *at; /* NULL for ATOMO__COUNT */
    size_t size; /* bytes visited so far */
    bool bad;    /* set by ATOMO__COPY_IN: a value is one that no step could have left */
};
void atomo__learnt_bytes(atomo__learnt_copy *copy, void *data, size_t n);
void atomo__learnt_doubles(atomo__learnt_copy *copy, double *x, size_t n); /* NaN sets bad */
void atomo__learnt_plan(atomo__learnt_copy *copy, atomo__plan *plan);      /* the fields that every plan has */

/* The first options of a compressor that takes atoms. */
enum { ATOMO__BUDGET_ATOMS, ATOMO__BUDGET_RATIO, ATOMO__BUDGET_BYTES, ATOMO__SAMPLING };
enum { ATOMO__SAMPLING_AUTO, ATOMO__BERNOULLI, ATOMO__SYSTEMATIC };
struct atomo_codec {
    _Atomic int refs, busy; /* number of holders; number of posted operations that code with it */
    const struct atomo_compressor *compressor;
    const struct atomo_atoms *atoms; /* or NULL */
    const char *name;
    char *own_name;                    /* the name set by atomo_codec_rename, owned; else NULL */
    uint32_t id;                       /* 8-bit hash of the name, in every frame */
    double option[ATOMO__MAX_OPTIONS]; /* values: the compressor's, the atom set's, ef, and together if it has that */
    int own_options, options;          /* number of the compressor's options; of all options */
    bool feedback;                     /* ef=true */
    bool scaled;                       /* every body ends with a factor (form.c) */
    bool together;                     /* together=true: draws cancel between the ranks (strata.c) */
    int ranks;                         /* that encode messages whose mean is taken; 1: only this one */
    double budget_atoms, budget_ratio, budget_bytes; /* one is > 0; all 0: the compressor has no budget */
    uint32_t seed[2], way;                           /* the top 8 bits of seed[1] are XORed with way */
    atomo__plan **plan;                              /* [plans], owned; NULL: this number is not planned */
    int plans, plan_room;                            /* largest planned number; length of plan, segment and order */
    void *scratch;                                   /* shared by all plans, as large as the largest needs */
    size_t scratch_size;                             /* bytes */
    float *sent;             /* [sent_room] the decoded message of one tensor (form.c); NULL: no plan needs it */
    int64_t sent_room;       /* entries */
    atomo__segment *segment; /* [plan_room], for the solver */
    atomo__plan **order;     /* [plan_room], the tensors of the step being encoded */
    double entries;          /* of all planned tensors */
    double other_entries, other_bytes; /* of tensors in the step that this codec does not code (atomo_codec_reserve) */
    double energy;             /* mean square of an entry in this step, when streaming in the last one; 0: not known */
    struct atomo__price {      /* state of the streaming form (stream.c) */
        bool open;             /* between begin and end of a step */
        uint32_t step, rank;   /* of the open step */
        double T;              /* the T that would have met the last step's budget; 0: not known */
        double target, aimed;  /* budgets in bits: this step's; the one that T was found for */
        double owed;           /* bits that the next step may spend beyond its budget, as a share of it; may be < 0 */
        double real;           /* average of bits sent over bits modelled in the last steps; 0: not known */
        double planned, scale; /* planned bits of all tensors; bits that this step may spend over planned bits */
        double planned_left, left; /* planned bits of the tensors not yet pushed; bits not yet spent */
        double sent, modelled;     /* bits of this step: sent; by the model */
        double drift, weight;      /* sums over tensors of planned bits * log(T called for / T), and of planned bits */
    } stream;
    atomo__pending pending;
    struct {                      /* arguments of plan_list and list_bits for the plan stage of list.c */
        int factors;              /* 0: the plan has one factor */
        double width[3], bits[3]; /* of each factor; bits 0: option bits, ATOMO_INTEGERS: exact integers */
    } list;
    atomo_codec_stats stats;
    struct { /* copies of the fields above from before this step (undo.c) */
        struct atomo__price stream;
        double energy;
        atomo_codec_stats stats;
    } before;
};

/* Returns the index of option ef in codec->option: behind the compressor's and the atom set's; together may follow. */
static inline int atomo__feedback_index(const atomo_codec *c)
{
    return c->own_options + (c->atoms ? atomo__option_count(c->atoms->options) : 0);
}

/* Returns whether the codec has a budget: those that take atoms have one. */
static inline bool atomo__has_budget(const atomo_codec *c)
{
    return c->atoms != NULL;
}

/* Returns the context of an encode or decode of this plan: the codec's scratch memory, the plan's random stream. */
atomo__context atomo__context_of(const atomo__plan *p, uint32_t rank, uint32_t step);
void atomo__stats_add(atomo_codec *c, const atomo__plan *p); /* adds the plan's figures to those of the step */
atomo_codec *atomo__codec_hold(atomo_codec *c); /* adds a holder, who ends by atomo_codec_free; returns c */
atomo__plan *atomo__plan_of(const atomo_codec *c, int tensor); /* NULL: it is not planned */
void atomo__plan_free(atomo__plan *plan);                      /* NULL is allowed */
/* *out = the plan of tensor number `tensor`; EARG if there is none or t is NULL, EDTYPE or ESHAPE if t is not f32 of
 * the planned shape. `what` names t in the text: "decode: acc". */
int atomo__plan_find(const atomo_codec *c, int tensor, const atomo_tensor *t, const char *what, atomo__plan **out);
/* EARG if t and the memory of messages, bytes [size], overlap. */
int atomo__plan_apart(const atomo_codec *c, const atomo_tensor *t, const uint8_t *bytes, double size, const char *what);
/* gather: *values = the elements of t, which has the plan's shape, in row-major order: its own memory if it is
 * contiguous, else a copy in p->dense. scatter: writes such a copy back to t, from which gather made it. */
int atomo__plan_gather(atomo__plan *p, const atomo_tensor *t, float **values);
int atomo__plan_scatter(const atomo__plan *p, const float *values, atomo_tensor *t);
/* Returns the header that a received message must have; rank or step < 0: any (decode.c). */
atomo__frame atomo__frame_wanted(const atomo__plan *p, double rank, double step);

/* ---- bundles: the messages of neighbouring tensors in one frame (bundle.c) ---- */
/* Notes that an exchange sends the messages of tensors first .. first + count - 1 in a bundle, so that budgets and
 * statistics count their bytes in it. */
void atomo__bundle_plan(atomo_codec *c, int first, int count);
/* Returns the bytes that are sent besides a body of `body` bytes. */
double atomo__bundle_bytes(const atomo__plan *p, uint32_t rank, uint32_t step, double body);
/* Replaces the messages of these tensors at data [*size] by a bundle, in place, unless that would gain little. */
int atomo__bundle_make(const atomo_codec *c, int first, int count, double rank, double step, uint8_t *data,
                       double *size);
bool atomo__is_bundle(const uint8_t *data, double size);
/* Checks a bundle, EFORMAT; *room = the most bytes that its messages take. */
int atomo__bundle_room(const atomo_codec *c, const uint8_t *data, double size, double *room);
/* Writes the messages of a bundle that was checked to out [room]; returns their bytes. */
double atomo__bundle_open(const atomo_codec *c, const uint8_t *data, double size, uint8_t *out);

/* ---- one budget over a step (step_budget.c) ---- */
atomo__frame atomo__frame_of(const atomo__plan *p, uint32_t rank, uint32_t step);
/* Returns the bits that tensors of `entries` entries may take together; 0: the budget is in atoms. */
double atomo__target_bits(const atomo_codec *c, double entries);
/* Returns the bits of a message in addition to its priced atoms: the frame around a body of body_bits, and the body's
 * fixed part. */
double atomo__overhead(const atomo__plan *p, uint32_t rank, uint32_t step, double body_bits);
/* Sets T of one measured plan for a budget in expected atoms. */
void atomo__solve_atoms(const atomo_codec *c, atomo__plan *p);
/* Sets T, and the families of atom sets that choose, of all measured plans for a target in bits. */
void atomo__solve_shared(atomo_codec *c, int count, atomo__plan **plan, uint32_t rank, uint32_t step, double target);
/* Chooses the family of a streamed plan whose families were all measured: the one of least variance at the length that
 * the present family has at T. */
void atomo__choose_again(atomo_codec *c, atomo__plan *p, uint32_t rank, uint32_t step, double T);

/* ---- the streaming form's budget (stream.c) ---- */
void atomo__price_begin(atomo_codec *c);                   /* begins a step; stream.step and stream.rank are set */
void atomo__price_set(atomo_codec *c, atomo__plan *plan);  /* sets T of a measured plan */
void atomo__price_note(atomo_codec *c, atomo__plan *plan); /* records what T the plan's coefficients call for */
void atomo__price_sent(atomo_codec *c, double bits);       /* records the length of a message */
void atomo__price_end(atomo_codec *c);                     /* sets T and planned bits for the next step */
double atomo__entries_that_came(const atomo_codec *c);     /* entries of the tensors priced in this step */

/* ---- undoing a step (undo.c) ---- */
/* The old state of a plan is saved by atomo__plan_open, that of the codec by atomo__undo_note. Commit keeps the changes
 * of a step. Undo restores the old state, so that later steps have the bits that they would have without this step. */
size_t atomo__undo_size(const atomo__plan *plan); /* bytes of plan->before */
void atomo__plan_open(atomo__plan *plan);         /* before the first change in a step; no effect if open already */
void atomo__undo_note(atomo_codec *c);
void atomo__undo_commit(atomo_codec *c);
void atomo__undo(atomo_codec *c);

/* ---- error feedback (error_feedback.c): option ef=true of any compressor ---- */
extern const struct atomo__option atomo__feedback_option;
int atomo__feedback_plan(atomo__plan *plan); /* allocates kept and residual, zero */
/* residual = kept + g, which is then encoded; ENONFINITE if g or the sum is not finite. */
int atomo__feedback_add(atomo__plan *plan, const float *g);
/* residual -= the decoded body. */
int atomo__feedback_subtract(atomo__plan *plan, const uint8_t *body, size_t size, atomo__context *c);

/* ---- the end of every body (form.c): a factor for error feedback, or the dense form if it is not longer ---- */
size_t atomo__form_bytes(const atomo_codec *c);          /* bytes added to the body that the compressor writes */
int atomo__form_plan(atomo_codec *c, atomo__plan *plan); /* called after the compressor's plan stage */
/* Completes the body just written: updates the residual, adds the factor, or replaces the body by the dense form. */
int atomo__form_close(atomo__plan *plan, atomo__writer *w, atomo__context *c);
/* decode_add of a received body, with its factor or dense form. */
int atomo__form_decode(const atomo__plan *plan, atomo__reader *body, atomo__context *c, float scale, float *acc);

/* Returns ENONFINITE with a text that names the tensor, the number of NaN and Inf in g, and the first position. */
int atomo__refuse_nonfinite(const atomo__plan *plan, const float *g);

#endif
