/* crc32.c - zlib's CRC-32; long inputs by the carry-less products of x86-64, at four times zlib's speed.
 *
 * The CRC is the remainder of the input, read as a polynomial over GF(2), modulo P = 0x104C11DB7. So 128 bits A with D
 * bits between them and a later 128-bit block may be replaced by A x^(D + 128) mod P, added to that block: a fold.
 * A is folded in its two halves, which are 64 bits apart, each by a product with a 33-bit constant. Four blocks are
 * folded side by side onto the next 64 bytes. At the end 16 bytes are left that have the remainder of everything
 * before; zlib takes them, and what follows them.
 */
#include "core/core.h"
#include <zlib.h>

#ifdef ATOMO_X86
#include <immintrin.h>

enum { BLOCK = 16, ROW = 4 * BLOCK, LEAST = 4 * ROW }; /* bytes; shorter inputs are left to zlib */
#define FOLDS __attribute__((target("pclmul")))

/* x^n mod P with its 32 bits reversed and shifted up by one, for n = distance + 32 (first half) and distance - 32
 * (second half, in the upper lane), where distance is 512 bits or 128 bits. */
static const uint64_t BY_ROW[2] = {0x154442BD4, 0x1C6E41596}, BY_BLOCK[2] = {0x1751997D0, 0x0CCAA009E};

FOLDS static inline __m128i load(const void *at)
{
    return _mm_loadu_si128(at);
}

/* Returns `next` with a folded onto it. */
FOLDS static inline __m128i fold(__m128i a, __m128i by, __m128i next)
{
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(a, by, 0x00), _mm_clmulepi64_si128(a, by, 0x11)), next);
}

/* Folds n bytes, a multiple of BLOCK and at least ROW, into the 16 bytes at `rest`. */
FOLDS static void fold_all(uint32_t crc, const uint8_t *at, size_t n, uint8_t rest[BLOCK])
{
    const uint8_t *const end = at + n;
    const __m128i by_row = load(BY_ROW), by_block = load(BY_BLOCK);
    __m128i a = _mm_xor_si128(load(at), _mm_cvtsi32_si128((int32_t)~crc)), b = load(at + BLOCK),
            c = load(at + 2 * BLOCK), d = load(at + 3 * BLOCK);
    for (at += ROW; end - at >= ROW; at += ROW) {
        a = fold(a, by_row, load(at));
        b = fold(b, by_row, load(at + BLOCK));
        c = fold(c, by_row, load(at + 2 * BLOCK));
        d = fold(d, by_row, load(at + 3 * BLOCK));
    }
    d = fold(fold(fold(a, by_block, b), by_block, c), by_block, d);
    for (; at < end; at += BLOCK) d = fold(d, by_block, load(at));
    _mm_storeu_si128((__m128i *)(void *)rest, d);
}

static bool folds(void)
{
    return __builtin_cpu_supports("pclmul") != 0;
}

uint32_t atomo__crc32(uint32_t crc, const void *data, size_t n)
{
    const size_t whole = n / BLOCK * BLOCK;
    if (n < LEAST || !folds()) return (uint32_t)crc32_z(crc, data, n);
    uint8_t rest[BLOCK];
    fold_all(crc, data, whole, rest);
    crc = (uint32_t)crc32_z(UINT32_MAX, rest, BLOCK); /* the inverse of zlib's register, which is 0 here */
    return (uint32_t)crc32_z(crc, (const uint8_t *)data + whole, n - whole);
}

#else

uint32_t atomo__crc32(uint32_t crc, const void *data, size_t n)
{
    return (uint32_t)crc32_z(crc, data, n);
}

#endif

uint32_t atomo__crc32_join(uint32_t crc, uint32_t next, size_t n)
{
    return n == 0 ? crc : (uint32_t)crc32_combine(crc, next, (z_off_t)n);
}
