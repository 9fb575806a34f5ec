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
/* A tensor of one row is divided into rows of this many entries. */
enum { ROTATED_RUN = 64 };

/* A tensor of coefficients [rows, taps, width]. A cell (row, tap) is `width` neighbouring entries. */
typedef struct rotated_shape {
    int64_t rows, taps, width;
    int64_t across; /* taps [taps / across, across] */
    int64_t n;      /* all entries; if taps is 1, the last row may be shorter than width */
} rotated_shape;

/* The model of the energies: the mean square of an entry in cell (r, t) is about 2^(octave - depth[t] + rise[r]). A
 * message contains the map and nothing else about the energies, so sender and receiver compute the same classes. */
enum { ROTATED_DEPTHS = 64, ROTATED_HIGHEST = 16 }; /* octaves that are distinguished; those of them above `octave` */
enum { ROTATED_DEAD = INT8_MIN };                   /* depth or rise of a tap or row of zeros, which is not sent */
enum { ROTATED_POOLS = 4 };
/* What a map has of the taps and rows: how fast the energy falls along both axes of taps (rotated_law); the depth
 * of each tap; that and the rise of each row. */
typedef enum rotated_kind { ROTATED_LAW, ROTATED_TAP_MAP, ROTATED_ROW_MAP, ROTATED_KINDS } rotated_kind;
typedef struct rotated_map {
    int octave;
    rotated_kind kind;
    uint8_t slope[2]; /* ROTATED_LAW: octaves from tap 0 to tap 1, along both axes */
    int pool;         /* octaves are joined until a class has 128 * 8^pool entries; ROTATED_POOLS - 1: one class */
    int8_t *depth;    /* [taps] */
    int8_t *rise;     /* [rows], with ROTATED_ROW_MAP; else 0 for all */
} rotated_map;

/* The classes of a tensor's entries, from the highest energy to the lowest. */
typedef struct rotated_classes {
    atomo__classes sizes;
    int64_t entries[ATOMO__CLASSES];
    int8_t of[ROTATED_DEPTHS]; /* the class of an octave; -1: the octave has no entries */
} rotated_classes;

/* Bits of a message before its units: form, T, pool and kind; the octave; both slopes; the depth of a tap; all rises,
 * of which histogram[rise + 128] is the number of rows, in the code of the best order, which is set. */
enum { ROTATED_HEADER_BITS = 2 + 15 + 2 + 2, ROTATED_SLOPE_BITS = 3 };
int rotated_octave_bits(int octave, double T);
int rotated_tap_bits(int8_t depth);
double rotated_row_bits(const int64_t *histogram, int *order);

typedef struct rotated_state {
    rotated_shape shape;
    atomo__tap_cosines cosines;
    double guessed; /* expected bits of the message, from which the first price is computed */
    /* of the present gradient */
    rotated_map best[ROTATED_KINDS]; /* the best map of each kind */
    double bits[ROTATED_KINDS];      /* of its slopes or depths, and rises */
    rotated_map map;                 /* the chosen one */
    rotated_classes classes;
    double map_bits; /* of the map in the message */
    double *energy;  /* [rows, taps]: sums of squares of the cells */
    int row_order;   /* of the code of the rises */
} rotated_state;

static inline rotated_state *atomo__rotated_state(const atomo__plan *plan)
{
    return plan->state;
}

/* Returns the number of entries in each cell of a row. */
static inline int64_t rotated_cell(const rotated_shape *s, int64_t row)
{
    return ATOMO_MIN(s->width, s->n - row * s->taps * s->width);
}

/* Returns the octave of a cell, 0 for the highest; -1 if the cell is not sent. */
static inline int rotated_depth(const rotated_map *m, int64_t row, int64_t tap)
{
    const int rise = m->kind == ROTATED_ROW_MAP ? m->rise[row] : 0;
    if (m->depth[tap] == ROTATED_DEAD || rise == ROTATED_DEAD) return -1;
    return ATOMO_MAX(0, ATOMO_MIN(ROTATED_HIGHEST + m->depth[tap] - rise, ROTATED_DEPTHS - 1));
}

/* ---- maps and classes (classes.c) ---- */
/* Sets m->depth by m->slope. */
void rotated_law(const rotated_shape *s, rotated_map *m);
/* Fits the map of each kind to s->energy. mean: scratch [taps]. */
void rotated_fit(rotated_state *s, double *mean);
/* Sets map, classes and map_bits: the map of least squared error + T^2 bits, with at most `most` classes. */
void rotated_choose(rotated_state *s, int most, double T);
/* Returns the expected bits besides those of the units: of the map, if a unit is sent, else of an empty message. */
double rotated_fixed_bits(const rotated_classes *c, double map_bits, double T);
/* *c = the classes of a map, without their energies, as sender and receiver know them. */
void rotated_pool(const rotated_shape *s, const rotated_map *m, int most, rotated_classes *c);

/* ---- a message (message.c) ---- */
typedef struct rotated_room {
    float *x;             /* [n + 2]: the coefficients */
    float *row;           /* [taps width + 2]: for the transform of one row */
    float *unit;          /* [largest unit] */
    uint32_t *index;      /* [largest unit + 16] */
    int8_t *depth, *rise; /* [taps], [rows]: the map of a message that is read */
    double *mean;         /* [taps] */
} rotated_room;
/* Returns the sum of x_i^2, added in a fixed order. */
double rotated_squares(const float *x, int64_t n);
/* *m = the parts of the scratch memory at `block`; returns its size. With block NULL only the size is computed. */
size_t rotated_scratch(const rotated_shape *s, void *block, rotated_room *m);
/* Writes the message of the coefficients x. */
int rotated_encode(atomo__plan *plan, const float *x, atomo__context *c, atomo__writer *w);
/* x += scale * the message's coefficients, or, if fresh, x = scale * these. With a malformed message a
 * part may have been added. */
int rotated_read(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *x, bool fresh);

#endif
