/* core.h - what every C file of the runtime uses: statuses, counted memory, random streams. Private. */
#ifndef ATOMO_CORE_H
#define ATOMO_CORE_H

#include "atomo_bindings.h"
#include <stdbool.h>

/* Functions worth compiling once per vector width; the loader picks the widest that the CPU has. With
 * -ffp-contract=off every clone gives the same bits. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(ATOMO_NO_CLONES)
#define ATOMO_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define ATOMO_CLONES
#endif

/* Where a loop is worth writing in AVX-512 by hand, beside the portable one (same bits), and chosen by the CPU. Plain
 * functions with a target attribute, chosen when they are called: sanitizer builds have them too. */
#if defined(__x86_64__) && defined(__GNUC__)
#define ATOMO_X86
#endif

/* Records the text for atomo_last_error and returns status. */
int atomo__fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define ATOMO_REQUIRE(cond, status, ...)                                                                               \
    do {                                                                                                               \
        if (!(cond)) return atomo__fail(status, __VA_ARGS__);                                                          \
    } while (0)
#define ATOMO_TRY(call)                                                                                                \
    do {                                                                                                               \
        int try_status_ = (call);                                                                                      \
        if (try_status_ < 0) return try_status_;                                                                       \
    } while (0)

/* Counted, 64-byte aligned, pooled by size class; safe from any thread. The bytes are not initialised.
 * ENOMEM leaves *out NULL. */
int atomo__alloc(void **out, size_t nbytes);
int atomo__calloc(void **out, size_t nbytes);
/* As atomo__alloc, for what a function gives back before it returns: the same few blocks serve all sizes, in place of
 * pooled ones for every size that ever was. */
int atomo__scratch(void **out, size_t nbytes);
void atomo__free(void *p); /* NULL is fine */
/* a*b*c as size_t; ELIMIT where it overflows (or passes PTRDIFF_MAX). */
int atomo__size_mul(size_t a, size_t b, size_t c, size_t *out);

#define ATOMO_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ATOMO_MAX(a, b) ((a) > (b) ? (a) : (b))

uint32_t atomo__crc32(uint32_t crc, const void *data, size_t n); /* CRC-32 (zlib's); start with 0 */

/* This host's cores shared by so many ranks, unless atomo_set_num_threads was called: idle OpenMP threads spin, and
 * ranks with more threads than cores between them crawl. */
void atomo__default_num_threads(int local_ranks);

/* The number of the next tensor filled since the seed (random.c), which keys its stream. */
uint64_t atomo__next_draw(void);

/* 4*nb random words: blocks first .. first+nb-1 of the stream (random.c). */
void atomo__random_words(const atomo_stream *s, uint32_t first, uint32_t nb, uint32_t *out);
/* 4 words each of ATOMO__AT blocks anywhere in the stream. */
enum { ATOMO__AT = 16 };
void atomo__random_at(const atomo_stream *s, const uint32_t block[ATOMO__AT], uint32_t out[4 * ATOMO__AT]);

static inline float atomo__to_uniform(uint32_t bits) /* [0, 1), a multiple of 2^-24 */
{
    return (float)(bits >> 8) * 0x1p-24f;
}

#endif
