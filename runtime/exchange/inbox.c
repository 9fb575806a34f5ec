/* inbox.c - the buffer for bytes received from other ranks, which grows as needed, and the lengths of the blocks in it.
 * A bucket whose operations use an inbox holds it, so that it outlives the Lua value. Path: stage 7. */
#include "exchange/engine.h"

int atomo_inbox_new(int ranks, atomo_inbox **out)
{
    *out = NULL;
    ATOMO_REQUIRE(ranks >= 1, ATOMO_EARG, "inbox: %d ranks, expected 1 or more", ranks);
    void *p, *counts;
    ATOMO_TRY(atomo__calloc(&p, sizeof **out));
    const int status = atomo__calloc(&counts, sizeof(double) * (size_t)ranks);
    if (status < 0) {
        atomo__free(p);
        return status;
    }
    *out = p;
    (*out)->counts = counts;
    (*out)->holders = 1;
    return ATOMO_OK;
}

atomo_inbox *atomo__inbox_hold(atomo_inbox *b)
{
    __atomic_add_fetch(&b->holders, 1, __ATOMIC_SEQ_CST);
    return b;
}

void atomo_inbox_free(atomo_inbox *b)
{
    if (!b || atomo__objects_kept() || __atomic_sub_fetch(&b->holders, 1, __ATOMIC_SEQ_CST) > 0) return;
    atomo_tensor_free(b->slot[0]);
    atomo__free(b->counts);
    atomo__free(b);
}
