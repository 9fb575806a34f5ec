/* bitstream.h - a bit writer and a bit reader, both bounds-checked; stage 6 of the path (messages). Private.
 *
 * Bytes are filled from the lowest bit. The writer never stores beyond its capacity; it sets `overflow` instead. The
 * reader never loads beyond its end; it sets `bad` and returns zeros, so that decoding a malformed message ends and
 * reports the error.
 */
#ifndef ATOMO_BITSTREAM_H
#define ATOMO_BITSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "messages are little-endian: this machine needs byte swaps here"
#endif

typedef struct atomo__writer {
    uint8_t *data;
    size_t capacity, size; /* bytes at data; bytes stored so far */
    uint64_t word;         /* bits not stored yet */
    int fill;              /* their number, < 32 */
    bool overflow;         /* capacity was not enough */
    size_t summed;         /* bytes from the beginning whose checksum is crc; who writes raw bytes may set them */
    uint32_t crc;
} atomo__writer;

static inline void atomo__put(atomo__writer *w, uint32_t value, int bits) /* bits 0..32, value < 2^bits */
{
    w->word |= (uint64_t)value << w->fill;
    w->fill += bits;
    if (w->fill < 32) return;
    uint32_t low = (uint32_t)w->word;
    if (w->size + 4 <= w->capacity)
        memcpy(w->data + w->size, &low, 4);
    else
        w->overflow = true;
    w->size += 4;
    w->word >>= 32;
    w->fill -= 32;
}

/* The same with fewer branches, for codes of varying length, where branches would be mispredicted. */
static inline void atomo__put_code(atomo__writer *w, uint32_t value, int bits)
{
    if (w->size + 8 > w->capacity) {
        atomo__put(w, value, bits);
        return;
    }
    w->word |= (uint64_t)value << w->fill;
    w->fill += bits;
    memcpy(w->data + w->size, &w->word, 8);
    int whole = w->fill & ~7;
    w->size += (size_t)whole >> 3;
    w->word >>= whole;
    w->fill -= whole;
}

/* Writes up to 56 bits with one store. The call before must be put_code or put_long (so fill < 8), and 8 bytes must be
 * free. */
static inline void atomo__put_long(atomo__writer *w, uint64_t value, int bits)
{
    w->word |= value << w->fill;
    w->fill += bits;
    memcpy(w->data + w->size, &w->word, 8);
    int whole = w->fill & ~7;
    w->size += (size_t)whole >> 3;
    w->word = whole < 64 ? w->word >> whole : 0;
    w->fill -= whole;
}

static inline void atomo__put_unary(atomo__writer *w, uint64_t zeros) /* zeros 0-bits, then a 1 */
{
    for (; zeros >= 31; zeros -= 31) atomo__put(w, 0, 31);
    atomo__put(w, 1u << zeros, (int)zeros + 1);
}

/* Exp-Golomb code of order k, for v < 2^30: with x = v + 2^k of b + 1 bits, b - k zeros and a one, then the lower b
 * bits of x. */
static inline int atomo__exp_golomb_bits(uint32_t v, int k)
{
    return 1 + k + 2 * (31 - k - __builtin_clz(v + (1u << k)));
}

static inline void atomo__put_exp_golomb(atomo__writer *w, uint32_t v, int k)
{
    const uint32_t x = v + (1u << k);
    const int bits = 31 - __builtin_clz(x);
    atomo__put_unary(w, (uint64_t)(bits - k));
    atomo__put(w, x & ((1u << bits) - 1), bits);
}

/* Maps the signed integers 0, -1, 1, -2, 2, ... to 0, 1, 2, 3, 4, ... */
static inline uint32_t atomo__zigzag(int32_t v)
{
    return (uint32_t)v << 1 ^ (uint32_t) - (v < 0);
}

static inline int32_t atomo__unzigzag(uint32_t v)
{
    return (int32_t)(v >> 1) ^ -(int32_t)(v & 1);
}

static inline void atomo__put_f32(atomo__writer *w, float x)
{
    uint32_t v;
    memcpy(&v, &x, 4);
    atomo__put(w, v, 32);
}

static inline void atomo__put_varint(atomo__writer *w, uint32_t v) /* 7 bits per byte; high bit 1: more bytes follow */
{
    for (; v >= 128; v >>= 7) atomo__put(w, (v & 127) | 128, 8);
    atomo__put(w, v, 8);
}

static inline int atomo__varint_bytes(uint32_t v)
{
    int n = 1;
    for (; v >= 128; v >>= 7) n++;
    return n;
}

static inline void atomo__put_align(atomo__writer *w) /* pads with zeros to a whole byte, and stores all bits */
{
    for (w->fill = (w->fill + 7) & ~7; w->fill > 0; w->fill -= 8, w->word >>= 8, w->size++) {
        if (w->size < w->capacity)
            w->data[w->size] = (uint8_t)w->word;
        else
            w->overflow = true;
    }
    w->word = 0;
}

typedef struct atomo__reader {
    const uint8_t *data;
    size_t size, at; /* bytes at data; the next byte to load */
    uint64_t word;   /* bits loaded and not yet read */
    int fill;        /* their number */
    bool bad;        /* a read went past the end, or a value was out of range */
} atomo__reader;

static inline void atomo__refill(atomo__reader *r) /* loads until fill >= 57, or to the end of the data */
{
    if (r->at + 8 <= r->size && r->fill <= 56) {
        uint64_t v;
        memcpy(&v, r->data + r->at, 8);
        int bytes = (64 - r->fill) >> 3;
        r->word |= v << r->fill;
        r->fill += 8 * bytes;
        r->at += (size_t)bytes;
        r->word &= ~(uint64_t)0 >> (64 - r->fill);
        return;
    }
    while (r->fill <= 56 && r->at < r->size) {
        r->word |= (uint64_t)r->data[r->at++] << r->fill;
        r->fill += 8;
    }
}

static inline uint32_t atomo__get(atomo__reader *r, int bits) /* bits 0..32 */
{
    if (r->fill < bits) {
        atomo__refill(r);
        if (r->fill < bits) {
            r->bad = true;
            r->word = 0;
            r->fill = 0;
            return 0;
        }
    }
    uint32_t v = (uint32_t)(r->word & (((uint64_t)1 << bits) - 1));
    r->word >>= bits;
    r->fill -= bits;
    return v;
}

/* Returns the number of zeros before the next 1; sets `bad` if there are more than `most`. */
static inline uint32_t atomo__get_unary(atomo__reader *r, uint32_t most)
{
    uint64_t zeros = 0;
    for (;;) {
        if (r->word) {
            int z = __builtin_ctzll(r->word);
            r->word >>= z;
            r->word >>= 1;
            r->fill -= z + 1;
            zeros += (uint64_t)z;
            break;
        }
        zeros += (uint64_t)r->fill;
        r->fill = 0;
        atomo__refill(r);
        if (r->fill == 0 || zeros > most) {
            r->bad = true;
            return 0;
        }
    }
    if (zeros > most) {
        r->bad = true;
        return 0;
    }
    return (uint32_t)zeros;
}

static inline uint32_t atomo__get_exp_golomb(atomo__reader *r, int k)
{
    const int bits = (int)atomo__get_unary(r, 30) + k;
    if (r->bad || bits > 30) {
        r->bad = true;
        return 0;
    }
    return ((1u << bits) | atomo__get(r, bits)) - (1u << k);
}

static inline float atomo__get_f32(atomo__reader *r)
{
    uint32_t v = atomo__get(r, 32);
    float x;
    memcpy(&x, &v, 4);
    return x;
}

static inline uint32_t atomo__get_varint(atomo__reader *r)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        uint32_t byte = atomo__get(r, 8);
        v |= (uint64_t)(byte & 127) << shift;
        if (!(byte & 128)) {
            if (v > UINT32_MAX || (byte == 0 && shift > 0)) r->bad = true; /* too large, or not the shortest form */
            return (uint32_t)v;
        }
    }
    r->bad = true;
    return 0;
}

/* Returns whether all bytes were read, the padding is zero, and `bad` is not set. */
static inline bool atomo__at_end(const atomo__reader *r)
{
    return !r->bad && r->at == r->size && r->fill < 8 && r->word == 0;
}

/* ---- whole bytes of a body ---- */
/* Reserves `bytes` bytes and returns their address; NULL, and overflow set, if they do not fit or fill is not 0. */
static inline uint8_t *atomo__put_raw(atomo__writer *w, size_t bytes)
{
    uint8_t *to = w->data + w->size;
    if (w->fill || w->size > w->capacity || w->capacity - w->size < bytes) {
        w->overflow = true;
        return NULL;
    }
    w->size += bytes;
    return to;
}

/* Returns the address of the next `bytes` bytes and skips them; NULL, and bad set, past the end or if fill is not 0. */
static inline const uint8_t *atomo__get_raw(atomo__reader *r, size_t bytes)
{
    if (r->bad || r->fill || r->size - r->at < bytes) {
        r->bad = true;
        return NULL;
    }
    r->at += bytes;
    return r->data + r->at - bytes;
}

static inline void atomo__put_raw_f32(atomo__writer *w, float x)
{
    uint8_t *to = atomo__put_raw(w, 4);
    if (to) memcpy(to, &x, 4);
}

/* Returns a float; sets `bad` if it is not finite. */
static inline float atomo__get_raw_f32(atomo__reader *r)
{
    float x = 0;
    const uint8_t *from = atomo__get_raw(r, 4);
    if (from) memcpy(&x, from, 4);
    if (!(x - x == 0)) r->bad = true;
    return x;
}

#endif
