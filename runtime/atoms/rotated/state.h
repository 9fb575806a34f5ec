/* state.h - what the files of rotated atoms share: how a tensor's entries fall into classes. Private to atoms/rotated.c
 * and atoms/rotated. */
#ifndef ATOMO_ROTATED_STATE_H
#define ATOMO_ROTATED_STATE_H

#include "atoms/common/rotated_unit.h"
#include "atoms/common/tap_cosines.h"
#include "codec/codec.h"
#include "sampling/gaussian.h"

enum { ROTATED_BASE, ROTATED_CLASSES }; /* options */
enum { ROTATED_TAPS, ROTATED_NONE };    /* base */
/* Rows of a tensor that has none: runs of so many entries. */
enum { ROTATED_RUN = 64 };

/* A tensor of coefficients [rows, taps, width]: a cell is `width` entries in a row. */
typedef struct rotated_shape {
    int64_t rows, taps, width;
    int64_t n; /* the last row may be shorter, where taps is 1 */
} rotated_shape;

/* Which entries are alike: the energy of cell (r, t), an entry's mean square, is near 2^(octave - depth[t] + rise[r]).
 * It is all that a message says of the energies, so both sides know the classes. */
enum { ROTATED_DEPTHS = 64, ROTATED_HIGHEST = 16 }; /* octaves that are told apart, of them above the taps' own */
enum { ROTATED_DEAD = INT8_MIN };                   /* a depth or rise: all zero, nothing is sent */
enum { ROTATED_POOLS = 4 };
typedef struct rotated_map {
    int octave;
    bool by_rows;  /* else all rise is 0 */
    int pool;      /* classes are pooled until they have 256 * 8^pool entries; the last one: all in one */
    int8_t *depth; /* [taps] */
    int8_t *rise;  /* [rows] */
} rotated_map;

/* The octaves' counts, and which class each falls into. */
typedef struct rotated_classes {
    atomo__classes sizes;
    int64_t entries[ATOMO__CLASSES];
    int8_t of[ROTATED_DEPTHS]; /* -1: no entries */
} rotated_classes;

/* Bits of a map: form, octave, pool and the like; a tap's depth; all rows' rises, and the order of their code. */
enum { ROTATED_HEADER_BITS = 2 + 16 + 10 + 2 + 1 };
int rotated_tap_bits(int8_t depth);
double rotated_row_bits(const int64_t *histogram, int *order); /* [256] from -128 on */

typedef struct rotated_state {
    rotated_shape shape;
    atomo__tap_cosines cosines;
    double guessed; /* bits of the message, for the first price */
    /* of the present gradient */
    rotated_map map;
    rotated_classes classes;
    double bits;             /* of the map */
    double *energy;          /* [rows, taps]: sums of squares */
    int8_t *depth[2], *rise; /* [taps], without rows and with; [rows] */
    int octave[2];
    double tap_bits[2], row_bits;
    int row_order;
} rotated_state;

static inline rotated_state *atomo__rotated_state(const atomo__plan *plan)
{
    return plan->state;
}

static inline int64_t rotated_cell(const rotated_shape *s, int64_t row) /* entries of a cell */
{
    return ATOMO_MIN(s->width, s->n - row * s->taps * s->width);
}

/* The octave of a cell, 0 the highest; -1: nothing is sent of it. */
static inline int rotated_depth(const rotated_map *m, int64_t row, int64_t tap)
{
    const int rise = m->by_rows ? m->rise[row] : 0;
    if (m->depth[tap] == ROTATED_DEAD || rise == ROTATED_DEAD) return -1;
    return ATOMO_MAX(0, ATOMO_MIN(ROTATED_HIGHEST + m->depth[tap] - rise, ROTATED_DEPTHS - 1));
}

/* classes.c: energies to maps, maps to classes. mean: room for [taps]. */
void rotated_fit(rotated_state *s, double *mean);
/* The map of least squared error + T^2 bits, with at most `most` classes. */
void rotated_choose(rotated_state *s, int most, double T);
/* The classes of a map, without their energies. */
void rotated_pool(const rotated_shape *s, const rotated_map *m, int most, rotated_classes *c);

/* ---- a message (message.c) ---- */
typedef struct rotated_room {
    float *x, *y;         /* [n + 2]: coefficients; the classes' one after the other */
    float *unit;          /* [largest unit] */
    uint32_t *index;      /* [largest unit] */
    int8_t *depth, *rise; /* of a message that is read */
    double *mean;         /* [taps] */
} rotated_room;
double rotated_squares(const float *x, int64_t n); /* their sum, in a fixed order */
size_t rotated_scratch(const rotated_shape *s, void *block, rotated_room *m);
int rotated_encode(atomo__plan *plan, const float *x, atomo__context *c, atomo__writer *w);
/* x += scale * the coefficients of the message (fresh: x = that). x is not in the scratch's y. */
int rotated_read(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *x, bool fresh);

#endif
