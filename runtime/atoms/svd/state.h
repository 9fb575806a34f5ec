/* state.h - spectral atoms' state of a tensor, and the scratch memory of a step. Private to atoms/svd.c and atoms/svd.
 */
#ifndef ATOMO_SVD_STATE_H
#define ATOMO_SVD_STATE_H

#include "atoms/svd.h"

enum { SVD_BITS, SVD_FOLD, SVD_EVERY }; /* options */
enum { SVD_BLOCK = 32 };                /* atoms whose long factors are computed at a time */
enum { SVD_EXPONENT_BITS = 9, SVD_EXPONENT_BIAS = 256 };

/* Rotated factors (option bits = 0; rates.c, factors.c). A message contains T, and for each atom its level: lambda^2 to
 * half an octave. Both sides compute from these two how the factors are coded. If even the long factors are short, both
 * factors are rounded to the same number of bits, which the message contains. */
enum { SVD_PRICE_BITS = 16, SVD_WIDTH_BITS = 4, SVD_FEWEST_BITS = 2, SVD_MOST_BITS = 12 };
enum { SVD_LEVELS = 256, SVD_MOST_LEVEL = 1000 }; /* half octaves that the budget tells apart; the largest |level| */
int svd_level_of(double square);                  /* the nearest to lambda^2 > 0 */
double svd_square_of(int level);

/* How a factor is coded: with a quantiser after a rotation, or, if it has fewer than SVD_LEAST_ROTATED entries, rounded
 * stochastically to `bits` bits. */
enum { SVD_LEAST_ROTATED = 256 };
typedef struct svd_coding {
    int quantiser, bits; /* quantiser -1: rounded */
    double loss, length; /* relative variance, of normal entries; expected bits */
} svd_coding;

typedef struct svd_rate {
    svd_coding shorter, longer;
    double length; /* expected bits of an atom that is sent */
    double loss;   /* expected squared error over lambda^2, of an atom that is sent always */
} svd_rate;

/* (T / lambda)^2 for which there are rates: 16 in an octave, from 2^-40 to 2^10. */
enum { SVD_IN_OCTAVE = 16, SVD_LOWEST = -40, SVD_HIGHEST = 10 };
enum { SVD_RATIOS = (SVD_HIGHEST - SVD_LOWEST) * SVD_IN_OCTAVE };

/* Bits and error of the atoms of a gradient as functions of T. */
typedef struct svd_rates {
    atomo__curve curve;
    int64_t k, l;
    svd_rate at[SVD_RATIOS];
    int limit;         /* number of the ratio beyond which factors are coded no more coarsely, but sent less often */
    double price_unit; /* times T: T in units of the scaled matrix */
    double error_unit; /* times a squared error of the scaled matrix: that of the gradient */
    int top;           /* level of the largest atom */
    double atoms[SVD_LEVELS], square[SVD_LEVELS]; /* number of atoms and sum of lambda^2, by levels below the top */
} svd_rates;

typedef struct svd_state {
    atomo__fold fold;
    int64_t k, l;      /* short and long side of the matrix */
    bool tall;         /* rows > cols: w are right singular vectors */
    int bits;          /* bits of a factor's entry; 0: rotated factors, as fine as the price allows */
    int exponent;      /* G is multiplied by 2^exponent to bring it near 1 */
    bool rough;        /* lambda are estimates from the Gram matrix */
    uint32_t kept_for; /* 1 + (step / every) of the basis; 0: there is no basis */
    double *lambda;    /* [k] magnitudes of the atoms; with the variance of rounding, if factors are rounded */
    float *basis;      /* [k, k] row i is w_i */
    svd_rates rates;   /* if factors are rotated */
} svd_state;

typedef struct svd_scratch {
    float *matrix; /* [rows, cols] the gradient, folded and scaled */
    /* for writing and reading a block of atoms */
    float *longs;    /* [SVD_BLOCK, l] */
    float *shorts;   /* [SVD_BLOCK, k] */
    float *uniforms; /* [max(l, 64 cols)] random numbers for a factor, or a tile of the update */
    float *unit;     /* [largest unit] of a rotated factor */
    uint32_t *index; /* [largest unit + 16] */
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
    atomo__svd_scratch(s, atomo__claim_scratch(c), &m);
    return m;
}

static inline bool svd_rotates(const svd_state *s)
{
    return s->bits == 0;
}

/* Returns whether even the long factors are too short to be rotated. A message then has no T. */
static inline bool svd_rounds_all(int64_t l)
{
    return l < SVD_LEAST_ROTATED;
}

/* Returns the matrix: g itself if it needs neither folding nor scaling, else m->matrix. */
const float *atomo__svd_matrix(const svd_state *s, const float *g, const svd_scratch *m);
/* Row j of longs = G^T w_j, or G w_j if G is tall, for `count` rows w_j of shorts. */
void atomo__svd_project(const svd_state *s, const float *matrix, const float *shorts, int count, float *longs);
/* Returns E||xhat - x||^2 / ||x||^2 for a vector of n normally distributed entries that is rounded to `bits`. */
double atomo__svd_usual_rounding(int64_t n, int bits);

/* ---- rotated factors ---- */
void svd_rates_start(svd_rates *r, int64_t k, int64_t l);
/* Sets the rates for the atoms of this gradient. weight: factor of their magnitudes in the budget. */
void svd_rates_measure(svd_state *s, double weight);
/* Returns the rate of an atom of lambda^2 at a price of T^2, both of the scaled matrix. *keep = the probability that it
 * is sent. */
const svd_rate *svd_rate_of(const svd_rates *r, double square, double price, double *keep);
size_t svd_rotated_most(const svd_state *s); /* bytes of the longest body */
/* The position of a writer or reader in a body. */
typedef struct svd_place {
    atomo_stream stream;
    uint32_t block, number; /* of the next rotation in the stream, and of the next unit */
    int level;              /* of the atom before */
    double price;           /* T^2, of the scaled matrix */
} svd_place;
int svd_rotated_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
/* open reads the fields before the first atom, read the next atom, to shorts [k] and longs [l]. Both return false for
 * bytes that encode cannot have written. */
bool svd_rotated_open(const svd_state *s, atomo__reader *r, const atomo__context *c, svd_place *at);
bool svd_rotated_read(const svd_state *s, atomo__reader *r, svd_place *at, const svd_scratch *m, float *shorts,
                      float *longs);

/* Stages of the descriptor (measure.c, message.c). */
int atomo__svd_measure(atomo__plan *plan, const float *g, atomo__context *c);
void atomo__svd_price(atomo__plan *plan, double T);
int atomo__svd_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w);
int atomo__svd_decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc);

#endif
