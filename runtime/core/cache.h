/* cache.h - objects that are expensive to make, kept by their key from one use to the next. Private.
 *
 * An object is out of the cache while it is used, so no two threads use the same one: atomo__cache_take() hands it out,
 * atomo__cache_keep() puts it back. The cache never makes an object; a caller that gets none makes one and keeps it.
 */
#ifndef ATOMO_CACHE_H
#define ATOMO_CACHE_H

#include <pthread.h>
#include <stddef.h>

enum { ATOMO_CACHE_BUCKETS = 256 };

typedef struct atomo__cached { /* first member of an object; its key follows at cache.key_at */
    struct atomo__cached *next;
} atomo__cached;

typedef struct atomo__cache {
    size_t key_at, key_bytes; /* offset and size of the key in an object; keys are compared by memcmp: no padding */
    int most;                 /* objects kept at the same time, 1 or more; one more releases all of these */
    void (*release)(void *object);
    pthread_mutex_t lock; /* PTHREAD_MUTEX_INITIALIZER; of all below */
    int count;
    atomo__cached *buckets[ATOMO_CACHE_BUCKETS];
} atomo__cache;

/* Returns a kept object with this key, which is then the caller's; NULL if there is none. */
void *atomo__cache_take(atomo__cache *c, const void *key);
/* Keeps an object. Its contents may change until the next take, except for the key. */
void atomo__cache_keep(atomo__cache *c, void *object);
/* Releases all kept objects. */
void atomo__cache_clear(atomo__cache *c);

#endif
