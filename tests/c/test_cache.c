/* test_cache.c - objects kept by key: each is used by one holder at a time, and no more are kept than the capacity. */
#include "check.h"
#include "core/cache.h"

typedef struct key {
    int32_t a, b;
} key;

typedef struct object {
    atomo__cached cached;
    int released, number;
    key key;
} object;

static void release(void *o)
{
    ((object *)o)->released++;
}

static atomo__cache cache_of(int most)
{
    return (atomo__cache){.key_at = offsetof(object, key),
                          .key_bytes = sizeof(key),
                          .most = most,
                          .release = release,
                          .lock = PTHREAD_MUTEX_INITIALIZER};
}

static void by_key(void)
{
    atomo__cache c = cache_of(8);
    object x = {.key = {1, 2}}, y = {.key = {1, 3}};
    CHECK(!atomo__cache_take(&c, &x.key));
    atomo__cache_keep(&c, &x);
    atomo__cache_keep(&c, &y);
    CHECK(!atomo__cache_take(&c, &(key){2, 1}));
    CHECK(atomo__cache_take(&c, &(key){1, 2}) == &x);
    CHECK(!atomo__cache_take(&c, &(key){1, 2})); /* x is in use */
    CHECK(atomo__cache_take(&c, &(key){1, 3}) == &y);
    atomo__cache_keep(&c, &x);
    CHECK(atomo__cache_take(&c, &(key){1, 2}) == &x);
    CHECK(x.released == 0 && y.released == 0);
}

/* Two threads that use the same key at once have an object each. */
static void same_key(void)
{
    atomo__cache c = cache_of(8);
    object x = {.number = 1}, y = {.number = 2};
    atomo__cache_keep(&c, &x);
    atomo__cache_keep(&c, &y);
    object *one = atomo__cache_take(&c, &x.key), *two = atomo__cache_take(&c, &x.key);
    CHECK(one && two && one->number + two->number == 3);
    CHECK(!atomo__cache_take(&c, &x.key));
}

/* More keys than buckets, so that some share one. */
static void many(void)
{
    enum { MANY = 3 * ATOMO_CACHE_BUCKETS };
    static object list[MANY];
    atomo__cache c = cache_of(MANY);
    for (int i = 0; i < MANY; i++) {
        list[i].key = (key){i, -i};
        atomo__cache_keep(&c, &list[i]);
    }
    int right = 0;
    for (int i = MANY - 1; i >= 0; i -= 2) right += atomo__cache_take(&c, &(key){i, -i}) == &list[i];
    for (int i = 0; i < MANY; i += 2) right += atomo__cache_take(&c, &(key){i, -i}) == &list[i];
    CHECK(right == MANY && c.count == 0);
}

static void capacity(void)
{
    atomo__cache c = cache_of(2);
    object x = {.key = {1, 0}}, y = {.key = {2, 0}}, z = {.key = {3, 0}}, used = {.key = {4, 0}};
    atomo__cache_keep(&c, &used);
    CHECK(atomo__cache_take(&c, &used.key) == &used);
    atomo__cache_keep(&c, &x);
    atomo__cache_keep(&c, &y);
    CHECK(x.released == 0 && y.released == 0);
    atomo__cache_keep(&c, &z);
    CHECK(x.released == 1 && y.released == 1 && z.released == 0 && used.released == 0);
    CHECK(!atomo__cache_take(&c, &x.key) && atomo__cache_take(&c, &z.key) == &z);
    atomo__cache_keep(&c, &z);
    atomo__cache_clear(&c);
    CHECK(z.released == 1 && c.count == 0 && !atomo__cache_take(&c, &z.key));
}

int main(void)
{
    RUN(by_key);
    RUN(same_key);
    RUN(many);
    RUN(capacity);
    return check_done();
}
