/* frame.c - the frame around a message; stage 6 of the path.
 *
 *   byte 0    0xA7
 *   byte 1    version of the format
 *   byte 2    codec: 8 bits of its name's checksum
 *   varint    tensor, rank, step
 *   2 bytes   hash of codec, the options that the body depends on, and the tensor's shape
 *   varint    length of the body
 *   body
 *   4 bytes   CRC-32 of everything before
 *
 * A frame takes 13 bytes for small numbers, more for longer varints. It is kept short because a whole step of ResNet-20
 * at ratio 256 is 4 KB, in 22 messages.
 */
#include "coding/messages.h"

enum { MAGIC = 0xA7, VERSION = 2 }; /* VERSION: of frames and of all bodies */

static int head_bytes(const atomo__frame *f, uint32_t body)
{
    return 3 + atomo__varint_bytes(f->tensor) + atomo__varint_bytes(f->rank) + atomo__varint_bytes(f->step) + 2 +
           atomo__varint_bytes(body);
}

int atomo__frame_bits(const atomo__frame *f, double body_bits)
{
    return 8 * (head_bytes(f, (uint32_t)ATOMO_MIN(UINT32_MAX, (body_bits + 7) / 8)) + 4);
}

size_t atomo__frame_begin(const atomo__frame *f, size_t body_most)
{
    return (size_t)head_bytes(f, (uint32_t)body_most);
}

size_t atomo__frame_close(const atomo__frame *f, uint8_t *data, size_t begin, const atomo__writer *body)
{
    const size_t body_size = body->size;
    uint8_t head[ATOMO__FRAME_MAX];
    atomo__writer w = {.data = head, .capacity = sizeof head};
    atomo__put(&w, MAGIC, 8);
    atomo__put(&w, VERSION, 8);
    atomo__put(&w, f->codec, 8);
    atomo__put_varint(&w, f->tensor);
    atomo__put_varint(&w, f->rank);
    atomo__put_varint(&w, f->step);
    atomo__put(&w, f->hash, 16);
    atomo__put_varint(&w, (uint32_t)body_size);
    atomo__put_align(&w);
    if (w.size != begin) memmove(data + w.size, data + begin, body_size);
    memcpy(data, head, w.size);
    const size_t n = w.size + body_size, summed = w.size + body->summed;
    uint32_t crc = atomo__crc32_join(atomo__crc32(0, data, w.size), body->crc, body->summed);
    crc = atomo__crc32(crc, data + summed, n - summed);
    memcpy(data + n, &crc, 4);
    return n + 4;
}

static int expect(const char *name, size_t offset, const char *what, uint32_t found, uint32_t wanted)
{
    ATOMO_REQUIRE(
        found == wanted, ATOMO_EFORMAT,
        "decode: message for %s: %s at byte %zu is %u, expected %u; decode it as it was encoded: same compressor, "
        "options, shape, tensor, step and rank",
        name, what, offset, (unsigned)found, (unsigned)wanted);
    return ATOMO_OK;
}

/* Reads a header and compares it with `want`: field = its fields, *begin = offset of the body, which ends with its
 * checksum within `size`. */
static int read_head(const atomo__frame *want, const char *name, const uint8_t *data, size_t size, uint32_t field[8],
                     size_t *begin)
{
    /* The header is read byte by byte, because its length is not known before. */
    size_t at = 0;
    static const struct {
        const char *what;
        int bytes; /* 0: varint */
    } layout[8] = {{"magic", 1}, {"format version", 1}, {"codec", 1}, {"tensor", 0},
                   {"rank", 0},  {"step", 0},           {"hash", 2},  {"body length", 0}};
    const uint32_t wanted[8] = {MAGIC,      VERSION,    want->codec, want->tensor,
                                want->rank, want->step, want->hash,  UINT32_MAX};
    for (int i = 0; i < 8; i++) {
        size_t start = at;
        uint64_t v = 0;
        int shift = 0, bytes = layout[i].bytes ? layout[i].bytes : 5;
        bool more = true;
        for (int b = 0; b < bytes && more; b++) {
            ATOMO_REQUIRE(at < size, ATOMO_EFORMAT, "decode: message for %s ends in its %s, at byte %zu of %zu", name,
                          layout[i].what, at, size);
            uint8_t byte = data[at++];
            if (layout[i].bytes) {
                v |= (uint64_t)byte << (8 * b);
            } else {
                v |= (uint64_t)(byte & 127) << shift;
                shift += 7;
                more = byte & 128;
            }
        }
        ATOMO_REQUIRE(layout[i].bytes || (!more && v <= UINT32_MAX), ATOMO_EFORMAT,
                      "decode: message for %s: %s at byte %zu is malformed", name, layout[i].what, start);
        field[i] = (uint32_t)v;
        if (wanted[i] != UINT32_MAX) ATOMO_TRY(expect(name, start, layout[i].what, field[i], wanted[i]));
    }
    ATOMO_REQUIRE(size - at >= 4 && size - at - 4 >= field[7], ATOMO_EFORMAT,
                  "decode: message for %s: body of %u bytes and checksum exceed the %zu bytes left at byte %zu", name,
                  (unsigned)field[7], size - at, at);
    *begin = at;
    return ATOMO_OK;
}

int atomo__frame_length(const atomo__frame *want, const char *name, const uint8_t *data, size_t size, size_t *length)
{
    uint32_t field[8];
    size_t begin;
    ATOMO_TRY(read_head(want, name, data, size, field, &begin));
    *length = begin + field[7] + 4;
    return ATOMO_OK;
}

int atomo__frame_head(const atomo__frame *want, const char *name, const uint8_t *data, size_t size, atomo__reader *body,
                      uint32_t *crc, atomo__frame *got)
{
    uint32_t field[8];
    size_t at;
    ATOMO_TRY(read_head(want, name, data, size, field, &at));
    memcpy(crc, data + at + field[7], 4);
    *body = (atomo__reader){.data = data + at, .size = field[7]};
    *got = (atomo__frame){field[2], field[3], field[4], field[5], field[6]};
    return ATOMO_OK;
}

int atomo__frame_open(const atomo__frame *want, const char *name, const uint8_t *data, size_t size, atomo__reader *body,
                      size_t *length, atomo__frame *got)
{
    uint32_t crc;
    ATOMO_TRY(atomo__frame_head(want, name, data, size, body, &crc, got));
    const size_t n = (size_t)(body->data - data) + body->size;
    const uint32_t found = atomo__crc32(0, data, n);
    ATOMO_REQUIRE(crc == found, ATOMO_EFORMAT, "decode: message for %s: checksum is %08x, expected %08x", name,
                  (unsigned)crc, (unsigned)found);
    *length = n + 4;
    return ATOMO_OK;
}

int atomo_codec_tensor_of(const uint8_t *bytes, double size)
{
    uint64_t v = 0;
    for (size_t at = 3; at < 8; at++) {
        ATOMO_REQUIRE((double)at < size, ATOMO_EFORMAT, "decode: message of %.0f bytes is too short for a header",
                      size);
        v |= (uint64_t)(bytes[at] & 127) << (7 * (at - 3));
        if (!(bytes[at] & 128)) {
            ATOMO_REQUIRE(v >= 1 && v <= INT32_MAX, ATOMO_EFORMAT, "decode: message names tensor %.0f", (double)v);
            return (int)v;
        }
    }
    return atomo__fail(ATOMO_EFORMAT, "decode: the tensor number at byte 3 is malformed");
}

/* Reads the header of a message without checking it: *begin = offset of the body, *length = its bytes. */
static int body_of(const uint8_t *bytes, double size, double *begin, double *length)
{
    static const int fixed[4] = {3, 0, 0, 0}, after[4] = {0, 0, 2, 0}; /* bytes before and after each varint */
    double at = 0;
    uint64_t v = 0;
    for (int i = 0; i < 4; i++) {
        bool more = true;
        at += fixed[i];
        v = 0;
        for (int shift = 0; more && shift < 35; shift += 7, at++) {
            ATOMO_REQUIRE(at < size, ATOMO_EFORMAT, "decode: message of %.0f bytes is too short for a header", size);
            v |= (uint64_t)(bytes[(size_t)at] & 127) << shift;
            more = bytes[(size_t)at] & 128;
        }
        ATOMO_REQUIRE(!more, ATOMO_EFORMAT, "decode: a number that ends at byte %.0f is malformed", at);
        at += after[i];
    }
    *begin = at;
    *length = (double)v;
    return ATOMO_OK;
}

int atomo_codec_length_of(const uint8_t *bytes, double size, double *length)
{
    double begin, body;
    ATOMO_TRY(body_of(bytes, size, &begin, &body));
    *length = begin + body + 4;
    return ATOMO_OK;
}

bool atomo__frame_body(const uint8_t *data, size_t size, size_t *body)
{
    double begin, length;
    if (body_of(data, (double)size, &begin, &length) < 0) return false;
    *body = (size_t)length;
    return true;
}
