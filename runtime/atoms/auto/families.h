/* families.h - the families of `auto` and its state of a tensor. Private to atoms/auto.c and atoms/auto. */
#ifndef ATOMO_AUTO_FAMILIES_H
#define ATOMO_AUTO_FAMILIES_H

#include "atoms/common/auto_interval.h"
#include "atoms/rotated.h"
#include "atoms/svd.h"

enum { AUTO_EVERY, AUTO_KEEP, AUTO_PREFER }; /* options */
enum { AUTO_TAG_BITS = 4 };                  /* bits of a message's tag: the family's number, from 1; 0: no atoms */

/* A slot is measured once. A family is a slot with certain option values; families of one slot share its measurement.
 */
enum { AUTO_ENTRY, AUTO_TAPS, AUTO_FOURIER, AUTO_SVD, AUTO_ROTATED, AUTO_DENSE, AUTO_SLOTS = AUTO_DENSE + 3 };
struct auto_family {
    const char *name;
    const struct atomo_atoms *atoms;
    int slot;
    double option[3];
    double harm; /* factor of its variance with prefer=accuracy, from training runs (docs/results_0.1.0.md) */
};
enum { AUTO_FAMILIES = 11 }; /* rows of the table in choose.c */
extern const struct auto_family atomo__auto_families[AUTO_FAMILIES];
_Static_assert(AUTO_FAMILIES < 1 << AUTO_TAG_BITS, "a tag holds every family, and 0");

typedef struct {
    atomo__plan plan[AUTO_SLOTS];
    double option[AUTO_FAMILIES][3];              /* values of each family's options */
    bool there[AUTO_SLOTS], measured[AUTO_SLOTS]; /* used for this tensor; measured in this step */
    atomo__cadence cadence;
    /* the states of the slots follow the struct in memory */
} auto_state;

/* Returns the plan of a family's slot, with the family's options set. */
atomo__plan *atomo__auto_plan(const atomo__plan *plan, int pick);
/* Returns the bits that messages with `expected` atoms of p save on average, because a message without atoms is only
 * its tag. */
double atomo__auto_saving(const atomo__plan *plan, const atomo__plan *p, double expected);
/* Makes `pick` the plan's family, and copies its segment, fixed bits and square to the plan, for the budget. */
void atomo__auto_present(atomo__plan *plan, int pick);
atomo__choose_fn atomo__auto_choose;
const char *atomo__auto_family(const atomo__plan *plan);

#endif
