/* state.h - what the files of spectral atoms share: a tensor's state, and the scratch that one step works in. Private
 * to atoms/svd.c and atoms/svd. */
#ifndef ATOMO_SVD_STATE_H
#define ATOMO_SVD_STATE_H

#include "atoms/svd.h"

enum { SVD_BITS, SVD_FOLD, SVD_EVERY }; /* options */
enum { SVD_BLOCK = 32 };                /* atoms whose long factors are made at a time */

/* Bits of a factor's entry that an atom may choose where they are mixed (option bits = 0, inside of auto), by their
 * number in a message. */
enum { SVD_WIDTHS = 8, SVD_WIDTH_BITS = 3, SVD_USUAL = 5 };
extern const int atomo__svd_widths[SVD_WIDTHS];

enum { SVD_EXPONENT_BITS = 9, SVD_EXPONENT_BIAS = 256 };

typedef struct svd_state {
    atomo__fold fold;
    int64_t k, l;      /* short and long side of the matrix */
    bool tall;         /* rows > cols: w are right vectors */
    int bits;          /* of every atom; 0 where mixed */
    bool mixed;        /* each atom has bits of its own */
    int exponent;      /* G was multiplied by 2^exponent to be near 1 */
    bool rough;        /* lambda is an estimate */
    uint32_t kept_for; /* 1 + (step / every) of the basis; 0: there is none */
    double *lambda;    /* [k] sizes of the atoms, rounding and weight included */
    float *basis;      /* [k, k]: row i is w_i */
    /* where mixed */
    double *cost;         /* [k] bits of each atom */
    double *table;        /* [SVD_WIDTHS + 1, k]: lambda by width, the last row without rounding */
    double *swell;        /* [k]: lambda over the one without rounding, at the last search */
    uint8_t *width;       /* [k]: number of each atom's bits */
    bool searched;        /* table is of this gradient */
    double norm;          /* ||g|| */
    double searched_norm; /* that of the gradient of the table */
    double strange; /* share of ||g||^2, 0 to 1, in atoms whose size is not that of the last search, to a factor of 2 */
} svd_state;

typedef struct svd_scratch {
    float *matrix; /* [rows, cols]: the gradient folded and scaled */
    /* writing and reading: a block of atoms */
    float *longs;    /* [SVD_BLOCK, l] */
    float *shorts;   /* [SVD_BLOCK, k] */
    float *uniforms; /* [max(l, 64 cols)]: random numbers of a factor; a tile of the update */
    /* a new basis, in the same memory */
    float *values; /* [k]: of the Gram matrix, ascending */
    float *work;   /* [lwork] of ssyevd */
    int *iwork;    /* [liwork] */
    int lwork, liwork;
    /* an old basis, in the same memory */
    float *squares;        /* [k]: w^T (G G^T) w */
    float *gram, *product; /* [k, k] */
} svd_scratch;

/* Places of the scratch in `block`; of NULL the size alone. */
size_t atomo__svd_scratch(const svd_state *s, void *block, svd_scratch *m);

static inline svd_scratch atomo__svd_scratch_of(const svd_state *s, const atomo__context *c)
{
    svd_scratch m;
    atomo__svd_scratch(s, atomo__room(c), &m);
    return m;
}

static inline int atomo__svd_bits(const svd_state *s, int64_t atom)
{
    return s->mixed ? atomo__svd_widths[s->width[atom]] : s->bits;
}

/* Variance counts weight^2 times in the budget: sizes are multiplied by it. */
static inline double atomo__svd_weight(const atomo__plan *plan)
{
    return plan->weight > 0 ? plan->weight : 1;
}

/* The matrix: g itself, or folded and scaled into m->matrix. */
const float *atomo__svd_matrix(const svd_state *s, const float *g, const svd_scratch *m);
/* Long factors of `count` short ones: row j of longs = G^T w_j (or G w_j where G is tall). */
void atomo__svd_project(const svd_state *s, const float *matrix, const float *shorts, int count, float *longs);
/* E||xhat - x||^2 / ||x||^2 of a vector of n entries like normal draws, rounded to `bits`. */
double atomo__svd_usual_rounding(int64_t n, int bits);

/* Stages of the descriptor (measure.c, message.c). */
int atomo__svd_measure(atomo__plan *plan, const float *g, atomo__context *c);
void atomo__svd_price(atomo__plan *plan, double T);
int atomo__svd_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
int atomo__svd_decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);

#endif
