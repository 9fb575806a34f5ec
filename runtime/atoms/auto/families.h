/* families.h - what the files of `auto` share: its families, a tensor's state. Private to atoms/auto.c and atoms/auto.
 */
#ifndef ATOMO_AUTO_FAMILIES_H
#define ATOMO_AUTO_FAMILIES_H

#include "atoms/common/auto_interval.h"
#include "atoms/rotated.h"
#include "atoms/svd.h"

enum { AUTO_EVERY, AUTO_KEEP, AUTO_PREFER }; /* options */
enum { AUTO_TAG_BITS = 4 };                  /* of a message: the family's number, 1 the first; 0: no atoms */

/* A slot is what is measured together; a family is a slot with options of its own. */
enum { AUTO_ENTRY, AUTO_TAPS, AUTO_FOURIER, AUTO_SVD, AUTO_ROTATED, AUTO_DENSE, AUTO_SLOTS = AUTO_DENSE + 3 };
struct auto_family {
    const char *name;
    const struct atomo_atoms *atoms;
    int slot;
    double option[3];
    double harm; /* what its variance counts where accuracy is preferred: from training runs, docs/results.md */
};
enum { AUTO_FAMILIES = 11 }; /* rows of the table in choose.c */
extern const struct auto_family atomo__auto_families[AUTO_FAMILIES];
_Static_assert(AUTO_FAMILIES < 1 << AUTO_TAG_BITS, "a tag holds every family, and 0");

typedef struct {
    atomo__plan plan[AUTO_SLOTS];
    double option[AUTO_FAMILIES][3];
    bool there[AUTO_SLOTS], measured[AUTO_SLOTS];
    atomo__cadence cadence;
    /* after the struct: the states of the slots */
} auto_state;

/* The plan of a family, with its options. */
atomo__plan *atomo__auto_plan(const atomo__plan *plan, int pick);
/* Bits that a message of `expected` atoms of p saves on the average, because one of none is its tag alone. */
double atomo__auto_saving(const atomo__plan *plan, const atomo__plan *p, double expected);
/* The plan shows the budget what its chosen family does. */
void atomo__auto_present(atomo__plan *plan, int pick);
atomo__choose_fn atomo__auto_choose;
const char *atomo__auto_family(const atomo__plan *plan);

#endif
