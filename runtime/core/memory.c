/* memory.c - counted, aligned, pooled memory.
 *
 * A freed block goes to the free list of its size class, and the next allocation of that class reuses it. So a training
 * loop whose shapes repeat stops calling the system's allocator after its first steps (atomo_mem.system_allocs no
 * longer grows). Each power of two is divided into 8 classes, so at most 1/8 of a block is wasted. Scratch memory is
 * separate: a few blocks as large as the largest requests, instead of one for each size. In compact mode large blocks
 * are mappings of their own, so that the system gets their memory back at once. For tests, the environment
 * variable ATOMO_FAIL_ALLOC=n makes the n-th allocation of the process (1-based) fail; atomo_mem_fail_alloc(n) makes
 * the n-th one after its call fail.
 */
#include "core/core.h"
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* AddressSanitizer reports any access to a pooled block, or to the unused bytes behind a live one. */
#if defined(__SANITIZE_ADDRESS__)
#define ATOMO_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ATOMO_ASAN 1
#endif
#endif
#ifdef ATOMO_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { SCRATCH_SLOTS = 4, CLASS_SCRATCH = -1 };
enum { ALIGN = 64, STEPS = 8, CLASSES = 64 * STEPS, MAPPED_MIN = 1 << 20, SLACK = 1 << 24 };
#define MOST ((uint64_t)1 << 46) /* bytes of one block: 64 TiB */

typedef struct block { /* lives in the ALIGN bytes before the payload */
    struct block *next;
    size_t capacity; /* payload bytes */
    int32_t cls;
    uint32_t magic;
    bool mapped; /* by mmap, else allocated by the C library */
} block;
#define BLOCK_LIVE 0xA70A11FEu
#define BLOCK_FREE 0xA70F4EEDu

_Static_assert(sizeof(block) <= ALIGN, "the block header fits before the payload");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block *free_list[CLASSES];
static block *scratch[SCRATCH_SLOTS]; /* the free scratch blocks; NULL: empty slot */
static atomo_mem stats;
static bool compact;             /* atomo_mem_compact */
static _Atomic bool kept;        /* atomo_keep_objects */
static long fail_countdown = -1; /* allocations until one fails; 0: none fails; -1: ATOMO_FAIL_ALLOC not read yet */

/* Returns the smallest class whose blocks hold n bytes; *capacity is their size. */
static int size_class(size_t n, size_t *capacity)
{
    if (n < ALIGN * STEPS) { /* multiples of ALIGN */
        int k = (int)((n + ALIGN - 1) / ALIGN);
        if (k == 0) k = 1;
        *capacity = (size_t)k * ALIGN;
        return k;
    }
    int octave = 63 - __builtin_clzll((unsigned long long)n);
    size_t step = ((size_t)1 << octave) / STEPS;
    size_t k = (n - ((size_t)1 << octave) + step - 1) / step; /* 0 .. STEPS */
    *capacity = ((size_t)1 << octave) + k * step;
    return (octave - 8) * STEPS + (int)k; /* octave >= 9; k == STEPS is the next octave's 0 */
}

static bool fail_now(void)
{
    if (fail_countdown < 0) {
        const char *text = getenv("ATOMO_FAIL_ALLOC");
        fail_countdown = text ? strtol(text, NULL, 10) : 0;
        if (fail_countdown < 0) fail_countdown = 0;
    }
    return fail_countdown > 0 && --fail_countdown == 0;
}

#ifndef ATOMO_ASAN
/* Returns a block in a mapping of its own, aligned so that the system can use huge pages: their first use costs less.
 */
static block *map_block(size_t capacity)
{
    const size_t length = capacity + ALIGN, huge = 2 << 20;
    char *p = mmap(NULL, length + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (huge - (uintptr_t)p % huge) % huge;
    const size_t used = (length + page - 1) / page * page;
    if (before) munmap(p, before);
    if (huge > before) munmap(p + before + used, huge - before);
#ifdef MADV_HUGEPAGE
    madvise(p + before, used, MADV_HUGEPAGE);
#endif
    block *b = (block *)(void *)(p + before);
    b->mapped = true;
    return b;
}
#endif

static block *from_system(size_t capacity)
{
#ifndef ATOMO_ASAN /* it looks for pointers, and so for leaks, in the C library's blocks only */
    if (compact && capacity >= MAPPED_MIN) return map_block(capacity);
#endif
    block *b = aligned_alloc(ALIGN, capacity + ALIGN);
    if (b) b->mapped = false;
    return b;
}

static void give_back(block *b) /* frees a pooled block to the system */
{
    stats.pooled -= (double)b->capacity;
    ASAN_UNPOISON_MEMORY_REGION((char *)b + ALIGN, b->capacity);
    if (b->mapped)
        munmap(b, b->capacity + ALIGN);
    else
        free(b);
}

/* Gives pooled blocks back, the largest first, until `capacity` more bytes from the system would not raise all memory
 * above the peak of live memory by more than 1/32, or SLACK bytes. */
static void make_room(size_t capacity)
{
    for (int c = CLASSES - 1; c >= 0; c--)
        while (free_list[c]) {
            const double peak = ATOMO_MAX(stats.peak, stats.live + (double)capacity);
            if (stats.live + stats.pooled + (double)capacity <= peak + ATOMO_MAX(peak / 32, SLACK)) return;
            block *b = free_list[c];
            free_list[c] = b->next;
            give_back(b);
        }
}

static block *take_pooled(int cls)
{
    block *b = free_list[cls];
    if (b) free_list[cls] = b->next;
    return b;
}

/* Returns the smallest free scratch block that is large enough. If there is none, frees the largest one to the system,
 * since the caller will allocate a larger one in its place, and returns NULL. */
static block *take_scratch(size_t capacity)
{
    int fit = -1, largest = -1;
    for (int i = 0; i < SCRATCH_SLOTS; i++) {
        if (!scratch[i]) continue;
        if (scratch[i]->capacity >= capacity && (fit < 0 || scratch[i]->capacity < scratch[fit]->capacity)) fit = i;
        if (largest < 0 || scratch[i]->capacity > scratch[largest]->capacity) largest = i;
    }
    if (fit < 0 && largest < 0) return NULL;
    block *b = scratch[fit < 0 ? largest : fit];
    scratch[fit < 0 ? largest : fit] = NULL;
    if (fit >= 0) return b;
    give_back(b);
    return NULL;
}

static int new_block(void **out, size_t nbytes, bool is_scratch)
{
    *out = NULL;
    ATOMO_REQUIRE((uint64_t)nbytes <= MOST, ATOMO_ELIMIT, "alloc: %zu bytes is more than any machine has", nbytes);
    size_t capacity;
    int cls = size_class(nbytes, &capacity);
    pthread_mutex_lock(&lock);
    if (fail_now()) {
        pthread_mutex_unlock(&lock);
        return atomo__fail(ATOMO_ENOMEM, "out of memory: %zu bytes (failure injected by a test)", nbytes);
    }
    block *b = is_scratch ? take_scratch(capacity) : take_pooled(cls);
    if (b) {
        stats.pooled -= (double)b->capacity;
    } else {
        if (compact) make_room(capacity);
        b = from_system(capacity);
        if (!b) {
            pthread_mutex_unlock(&lock);
            return atomo__fail(ATOMO_ENOMEM, "out of memory: %zu bytes wanted, %.0f in use", nbytes, stats.live);
        }
        stats.system_allocs += 1;
        b->capacity = capacity;
        b->cls = is_scratch ? CLASS_SCRATCH : cls;
    }
    b->magic = BLOCK_LIVE;
    stats.live += (double)b->capacity;
    stats.live_blocks += 1;
    if (stats.live > stats.peak) stats.peak = stats.live;
    if (stats.live + stats.pooled > stats.high_water) stats.high_water = stats.live + stats.pooled;
    pthread_mutex_unlock(&lock);
    *out = (char *)b + ALIGN;
    ASAN_POISON_MEMORY_REGION(*out, b->capacity);
    ASAN_UNPOISON_MEMORY_REGION(*out, nbytes);
    return ATOMO_OK;
}

int atomo__alloc(void **out, size_t nbytes)
{
    return new_block(out, nbytes, false);
}

int atomo__scratch(void **out, size_t nbytes)
{
    return new_block(out, nbytes, true);
}

int atomo__calloc(void **out, size_t nbytes)
{
    ATOMO_TRY(atomo__alloc(out, nbytes));
    memset(*out, 0, nbytes);
    return ATOMO_OK;
}

/* Puts b into an empty slot, or in place of the smallest block if b is larger. Returns the block that has no slot, for
 * the caller to free to the system, or NULL. */
static block *keep_scratch(block *b)
{
    int at = 0;
    for (int i = 1; i < SCRATCH_SLOTS; i++)
        if (scratch[at] && (!scratch[i] || scratch[i]->capacity < scratch[at]->capacity)) at = i;
    block *had = scratch[at];
    if (had && had->capacity >= b->capacity) return b;
    scratch[at] = b;
    return had;
}

void atomo__free(void *p)
{
    if (!p) return;
    block *b = (block *)(void *)((char *)p - ALIGN);
    if (b->magic != BLOCK_LIVE) abort(); /* double free or foreign pointer: stop before it corrupts memory */
    ASAN_POISON_MEMORY_REGION(p, b->capacity);
    pthread_mutex_lock(&lock);
    b->magic = BLOCK_FREE;
    stats.live -= (double)b->capacity;
    stats.live_blocks -= 1;
    stats.pooled += (double)b->capacity;
    if (b->cls == CLASS_SCRATCH) {
        block *over = keep_scratch(b);
        if (over) give_back(over);
    } else {
        b->next = free_list[b->cls];
        free_list[b->cls] = b;
    }
    pthread_mutex_unlock(&lock);
}

int atomo__size_mul(size_t a, size_t b, size_t c, size_t *out)
{
    size_t ab, abc;
    if (__builtin_mul_overflow(a, b, &ab) || __builtin_mul_overflow(ab, c, &abc) || abc > (size_t)PTRDIFF_MAX)
        return atomo__fail(ATOMO_ELIMIT, "size %zu x %zu x %zu overflows", a, b, c);
    *out = abc;
    return ATOMO_OK;
}

void atomo_mem_stats(atomo_mem *out)
{
    pthread_mutex_lock(&lock);
    *out = stats;
    pthread_mutex_unlock(&lock);
}

void atomo_mem_reset_peak(void)
{
    pthread_mutex_lock(&lock);
    stats.peak = stats.live;
    stats.high_water = stats.live + stats.pooled;
    pthread_mutex_unlock(&lock);
}

void atomo_mem_compact(int on)
{
    pthread_mutex_lock(&lock);
    compact = on != 0;
    pthread_mutex_unlock(&lock);
}

int atomo_mem_fail_alloc(int n)
{
    pthread_mutex_lock(&lock);
    const long left = fail_countdown;
    fail_countdown = n > 0 ? n : 0;
    pthread_mutex_unlock(&lock);
    return left > 0 ? (int)left : 0;
}

void atomo_mem_trim(void)
{
    pthread_mutex_lock(&lock);
    for (int c = 0; c < CLASSES; c++) {
        for (block *b = free_list[c], *next; b; b = next) {
            next = b->next;
            give_back(b);
        }
        free_list[c] = NULL;
    }
    for (int i = 0; i < SCRATCH_SLOTS; i++) {
        if (scratch[i]) give_back(scratch[i]);
        scratch[i] = NULL;
    }
    pthread_mutex_unlock(&lock);
}

void atomo_keep_objects(void)
{
    kept = true;
}

bool atomo__objects_kept(void)
{
    return kept;
}
