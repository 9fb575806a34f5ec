/* carve.h - cuts a block of memory into stretches that begin at multiples of 64 bytes. Private.
 *
 * One function names the stretches of a state or a scratch. On a block it gives their places; on NULL it only adds up
 * their sizes, so the size that is planned is that of the places that are used.
 */
#ifndef ATOMO_CARVE_H
#define ATOMO_CARVE_H

#include <stddef.h>

typedef struct atomo__carver {
    void *block; /* NULL: nothing is placed */
    size_t size; /* bytes from the block's beginning to the end of the last stretch */
} atomo__carver;

static inline size_t atomo__round_up(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* The next stretch; NULL where there is no block. */
static inline void *atomo__carve(atomo__carver *c, size_t count, size_t bytes_each)
{
    const size_t at = atomo__round_up(c->size);
    c->size = at + count * bytes_each;
    return c->block ? (char *)c->block + at : NULL;
}

#endif
