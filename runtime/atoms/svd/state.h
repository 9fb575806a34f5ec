/* state.h - spectral atoms' state of a tensor, and the scratch memory of a step. Private to atoms/svd.c and atoms/svd.
 */
#ifndef ATOMO_SVD_STATE_H
#define ATOMO_SVD_STATE_H

#include "atoms/svd.h"

enum { SVD_BITS, SVD_FOLD, SVD_EVERY }; /* options */
enum { SVD_BLOCK = 32 };                /* atoms whose long factors are computed at a time */

/* With mixed bits (option bits = 0, only within auto) each atom has a width, the bits of its factors' entries. A
 * message has the width's number in SVD_WIDTH_BITS bits. SVD_USUAL: number of the width before the first search. */
enum { SVD_WIDTHS = 8, SVD_WIDTH_BITS = 3, SVD_USUAL = 5 };
extern const int atomo__svd_widths[SVD_WIDTHS];

enum { SVD_EXPONENT_BITS = 9, SVD_EXPONENT_BIAS = 256 };

typedef struct svd_state {
    atomo__fold fold;
    int64_t k, l;      /* short and long side of the matrix */
    bool tall;         /* rows > cols: w are right singular vectors */
    int bits;          /* bits of a factor's entry, the same for all atoms; 0: mixed */
    bool mixed;        /* each atom has its own width */
    int exponent;      /* G is multiplied by 2^exponent to bring it near 1 */
    bool rough;        /* lambda are estimates from the Gram matrix */
    uint32_t kept_for; /* 1 + (step / every) of the basis; 0: there is no basis */
    double *lambda;    /* [k] magnitudes of the atoms, rounding and weight included */
    float *basis;      /* [k, k] row i is w_i */
    /* if mixed, else NULL or 0 */
    double *cost;         /* [k] bits of each atom */
    double *table;        /* [SVD_WIDTHS + 1, k] lambda for each width; the last row is without rounding */
    double *swell;        /* [k] lambda divided by that without rounding */
    uint8_t *width;       /* [k] number of each atom's width */
    bool searched;        /* the table is for this gradient */
    double norm;          /* ||g|| */
    double searched_norm; /* ||g|| at the last search */
    double strange;       /* fraction of ||g||^2, 0 to 1, in atoms that have changed more than twofold since then */
} svd_state;

typedef struct svd_scratch {
    float *matrix; /* [rows, cols] the gradient, folded and scaled */
    /* for writing and reading a block of atoms */
    float *longs;    /* [SVD_BLOCK, l] */
    float *shorts;   /* [SVD_BLOCK, k] */
    float *uniforms; /* [max(l, 64 cols)] random numbers for a factor, or a tile of the update */
    /* for computing a new basis, in the same memory */
    float *values;     /* [k] eigenvalues of the Gram matrix, ascending */
    float *work;       /* [lwork] for ssyevd */
    int *iwork;        /* [liwork] for ssyevd */
    int lwork, liwork; /* lengths of both */
    /* for an old basis, in the same memory */
    float *squares;        /* [k] w^T (G G^T) w */
    float *gram, *product; /* [k, k] */
} svd_scratch;

/* Sets *m to places in `block` and returns their size; with block NULL only returns the size. */
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

/* Returns the factor of magnitudes in the budget, which counts the variance weight^2 times. */
static inline double atomo__svd_weight(const atomo__plan *plan)
{
    return plan->weight > 0 ? plan->weight : 1;
}

/* Returns the matrix: g itself if it needs neither folding nor scaling, else m->matrix. */
const float *atomo__svd_matrix(const svd_state *s, const float *g, const svd_scratch *m);
/* Row j of longs = G^T w_j, or G w_j if G is tall, for `count` rows w_j of shorts. */
void atomo__svd_project(const svd_state *s, const float *matrix, const float *shorts, int count, float *longs);
/* Returns E||xhat - x||^2 / ||x||^2 for a vector of n normally distributed entries that is rounded to `bits`. */
double atomo__svd_usual_rounding(int64_t n, int bits);

/* Stages of the descriptor (measure.c, message.c). */
int atomo__svd_measure(atomo__plan *plan, const float *g, atomo__context *c);
void atomo__svd_price(atomo__plan *plan, double T);
int atomo__svd_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
int atomo__svd_decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);

#endif
