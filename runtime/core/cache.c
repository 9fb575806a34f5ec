/* cache.c - objects that are expensive to make, kept by their key (cache.h). */
#include "core/cache.h"
#include "core/core.h"
#include <string.h>

static atomo__cached **bucket_of(atomo__cache *c, const void *key)
{
    return &c->buckets[atomo__crc32(0, key, c->key_bytes) % ATOMO_CACHE_BUCKETS];
}

static const void *key_of(const atomo__cache *c, const atomo__cached *object)
{
    return (const char *)object + c->key_at;
}

void *atomo__cache_take(atomo__cache *c, const void *key)
{
    atomo__cached *found = NULL;
    pthread_mutex_lock(&c->lock);
    for (atomo__cached **at = bucket_of(c, key); *at; at = &(*at)->next)
        if (memcmp(key_of(c, *at), key, c->key_bytes) == 0) {
            found = *at;
            *at = found->next;
            c->count--;
            break;
        }
    pthread_mutex_unlock(&c->lock);
    return found;
}

static void release_all(atomo__cache *c)
{
    for (int i = 0; i < ATOMO_CACHE_BUCKETS; i++)
        for (atomo__cached *object = c->buckets[i], *next; object; object = next) {
            next = object->next;
            c->release(object);
        }
    memset(c->buckets, 0, sizeof c->buckets);
    c->count = 0;
}

void atomo__cache_keep(atomo__cache *c, void *object)
{
    atomo__cached *kept = object, **bucket = bucket_of(c, key_of(c, kept));
    pthread_mutex_lock(&c->lock);
    if (c->count == c->most) release_all(c);
    kept->next = *bucket;
    *bucket = kept;
    c->count++;
    pthread_mutex_unlock(&c->lock);
}

void atomo__cache_clear(atomo__cache *c)
{
    pthread_mutex_lock(&c->lock);
    release_all(c);
    pthread_mutex_unlock(&c->lock);
}
