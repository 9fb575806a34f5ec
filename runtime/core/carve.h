/* carve.h - divides one block of memory into 64-byte aligned arrays. Private.
 *
 * A caller writes one function that carves all arrays of its state or scratch memory. It is run twice: with block NULL
 * it only adds up the sizes, and with the allocated block it returns the addresses. So the planned size and the layout
 * cannot differ.
 */
#ifndef ATOMO_CARVE_H
#define ATOMO_CARVE_H

#include <stddef.h>

typedef struct atomo__carver {
    void *block; /* 64-byte aligned; NULL: only the size is computed */
    size_t size; /* bytes from the start of the block to the end of the last array; starts at 0 */
} atomo__carver;

static inline size_t atomo__round_up(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Returns the next array, of `count` elements; NULL if block is NULL. */
static inline void *atomo__carve(atomo__carver *c, size_t count, size_t bytes_each)
{
    const size_t at = atomo__round_up(c->size);
    c->size = at + count * bytes_each;
    return c->block ? (char *)c->block + at : NULL;
}

#endif
