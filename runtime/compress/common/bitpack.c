/* bitpack.c - packs codes of 1 to 8 bits into bytes; stage 6 of the path (QSGD, TernGrad, signs).
 *
 * A chunk of up to 512 codes is eight rows of 64 lanes (fewer in the last chunk). The eight codes of lane l, one from
 * each row, are packed as a stream of bits into byte l of `bits` rows of bytes. Every step applies the same shift and
 * mask to all lanes, eight lanes in a 64-bit word, so packing any width is limited only by memory.
 */
#include "compress/common/levels.h"

enum { ROWS = 8, LANES = 64, WORDS = LANES / 8 };

static inline uint64_t bytes_of(unsigned byte) /* repeated in all eight lanes */
{
    return 0x0101010101010101u * (uint64_t)(byte & 255);
}

/* A lane's bits are a stream that is divided into fields of `width` bits, one in each row k of the input, and into
 * fields of `other` bits, one in each row r of the output. Returns the bits of input field k = v at their place in
 * output field r. */
static inline uint64_t shifted(uint64_t v, int k, int width, int r, int other)
{
    const int by = k * width - r * other;
    const unsigned field = (1u << width) - 1, to = (1u << other) - 1;
    if (by >= other || by <= -width) return 0;
    return by >= 0 ? (v << by) & bytes_of(field << by & to) : (v >> -by) & bytes_of(field >> -by & to);
}

static inline __attribute__((always_inline)) void regroup(const uint64_t *restrict from, int fields, int width,
                                                          uint64_t *restrict out, int others, int other)
{
#pragma GCC unroll 8
    for (int r = 0; r < others; r++)
        for (int w = 0; w < WORDS; w++) {
            uint64_t v = 0;
#pragma GCC unroll 8
            for (int k = 0; k < fields; k++) v |= shifted(from[k * WORDS + w], k, width, r, other);
            out[r * WORDS + w] = v;
        }
}

#define WIDTH(bits)                                                                                                    \
    ATOMO_CLONES static void pack##bits(const uint64_t *code, uint64_t *out)                                           \
    {                                                                                                                  \
        regroup(code, ROWS, bits, out, bits, 8);                                                                       \
    }                                                                                                                  \
    ATOMO_CLONES static void unpack##bits(const uint64_t *in, uint64_t *code)                                          \
    {                                                                                                                  \
        regroup(in, bits, 8, code, ROWS, bits);                                                                        \
    }
WIDTH(1)
WIDTH(2)
WIDTH(3)
WIDTH(4)
WIDTH(5)
WIDTH(6)
WIDTH(7)
WIDTH(8)

typedef void words_fn(const uint64_t *from, uint64_t *to);
static words_fn *const packers[] = {NULL, pack1, pack2, pack3, pack4, pack5, pack6, pack7, pack8};
static words_fn *const unpackers[] = {NULL, unpack1, unpack2, unpack3, unpack4, unpack5, unpack6, unpack7, unpack8};

void atomo__pack(const uint8_t *code, int n, int bits, uint8_t *out)
{
    uint64_t from[ATOMO__CHUNK / 8] = {0}, to[ATOMO__CHUNK / 8];
    const int lanes = (n + 7) / 8;
    for (int k = 0; k * lanes < n; k++)
        memcpy((uint8_t *)from + k * LANES, code + k * lanes, (size_t)ATOMO_MIN(lanes, n - k * lanes));
    packers[bits](from, to);
    for (int r = 0; r < bits; r++) memcpy(out + r * lanes, (uint8_t *)to + r * LANES, (size_t)lanes);
}

bool atomo__unpack(const uint8_t *in, int n, int bits, uint8_t *code)
{
    uint64_t from[ATOMO__CHUNK / 8] = {0}, to[ATOMO__CHUNK / 8];
    const int lanes = (n + 7) / 8;
    for (int r = 0; r < bits; r++) memcpy((uint8_t *)from + r * LANES, in + r * lanes, (size_t)lanes);
    unpackers[bits](from, to);
    if (n == ATOMO__CHUNK) {
        memcpy(code, to, ATOMO__CHUNK);
        return true;
    }
    uint8_t over = 0;
    for (int k = 0; k < ROWS; k++)
        for (int l = 0; l < lanes; l++) {
            uint8_t v = ((const uint8_t *)to)[k * LANES + l];
            if (k * lanes + l < n)
                code[k * lanes + l] = v;
            else
                over |= v;
        }
    return over == 0;
}
