/* core.h - what every C file of the runtime uses: statuses, counted memory, random streams. Private. */
#ifndef ATOMO_CORE_H
#define ATOMO_CORE_H

#include "atomo_bindings.h"
#include <stdbool.h>

/* Marks a function that is compiled once per vector width; the dynamic loader picks the widest version that the CPU
 * supports. With -ffp-contract=off all versions give bit-identical results. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(ATOMO_NO_CLONES)
#define ATOMO_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define ATOMO_CLONES
#endif

/* Defined where some loops also have a hand-written AVX-512 version, bit-identical to the portable one. These are plain
 * functions with a target attribute, and the caller checks the CPU at run time, so sanitizer builds use them too. */
#if defined(__x86_64__) && defined(__GNUC__)
#define ATOMO_X86
#endif

/* Records the text for atomo_last_error (at most 1023 bytes) and returns status. */
int atomo__fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The text of an error number of the system and what the user can do about it: "No space left on device; free some
 * space or choose another place". Valid until this thread's next call. */
const char *atomo__system_error(int number);
#define ATOMO_REQUIRE(cond, status, ...)                                                                               \
    do {                                                                                                               \
        if (!(cond)) return atomo__fail(status, __VA_ARGS__);                                                          \
    } while (0)
#define ATOMO_TRY(call)                                                                                                \
    do {                                                                                                               \
        int try_status_ = (call);                                                                                      \
        if (try_status_ < 0) return try_status_;                                                                       \
    } while (0)

/* *out = a block of nbytes, 64-byte aligned, counted in atomo_mem and pooled by size class; any thread may call it.
 * atomo__alloc leaves the bytes uninitialised, atomo__calloc sets them to 0. ENOMEM leaves *out NULL. The caller frees
 * the block with atomo__free. */
int atomo__alloc(void **out, size_t nbytes);
int atomo__calloc(void **out, size_t nbytes);
/* As atomo__alloc, for scratch memory that the caller frees before it returns: a few blocks are reused for all sizes.
 */
int atomo__scratch(void **out, size_t nbytes);
void atomo__free(void *p);      /* NULL is allowed */
bool atomo__objects_kept(void); /* since atomo_keep_objects: functions that free an object return at once */
/* *out = a*b*c; ELIMIT if the product exceeds PTRDIFF_MAX. */
int atomo__size_mul(size_t a, size_t b, size_t c, size_t *out);

/* Registers the text of a key that atomo_build_info knows, for a part of the library that core does not use (MPI,
 * oneDNN); called by a constructor of that part, before main. */
typedef const char *atomo__info_fn(void);
void atomo__build_info_add(const char *key, atomo__info_fn *text);

#define ATOMO_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ATOMO_MAX(a, b) ((a) > (b) ? (a) : (b))

uint32_t atomo__crc32(uint32_t crc, const void *data, size_t n); /* CRC-32 (zlib's); start with 0 */
/* Returns the CRC-32 of bytes whose CRC-32 is crc, followed by n bytes whose CRC-32 is next. */
uint32_t atomo__crc32_join(uint32_t crc, uint32_t next, size_t n);

/* Sets the number of threads to this host's cores divided by `local_ranks`, at most the cores that this process may run
 * on; no effect after atomo_set_num_threads. Idle OpenMP threads spin, so the ranks of a host become very slow when
 * they have more threads than the host has cores. */
void atomo__default_num_threads(int local_ranks);

/* Returns how many tensors were filled with random numbers since the seed was set, and counts one more. The number keys
 * the stream of the tensor that is filled next. */
uint64_t atomo__next_draw(void);

/* out[4*nb] = blocks first .. first+nb-1 of the stream, 4 words each. */
void atomo__random_words(const atomo_stream *s, uint32_t first, uint32_t nb, uint32_t *out);
/* out = the 4 words of each of the ATOMO__AT blocks whose numbers are in `block`, in any order. */
enum { ATOMO__AT = 16 };
void atomo__random_at(const atomo_stream *s, const uint32_t block[ATOMO__AT], uint32_t out[4 * ATOMO__AT]);

static inline float atomo__to_uniform(uint32_t bits) /* [0, 1), a multiple of 2^-24 */
{
    return (float)(bits >> 8) * 0x1p-24f;
}

#endif
