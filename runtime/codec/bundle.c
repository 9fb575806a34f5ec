/* bundle.c - bundles: the messages of neighbouring tensors from one rank, for one receiver, with one frame around all
 * of them; stages 6 and 8 of the path.
 *
 *   byte 0    0xA8
 *   byte 1    version of the format
 *   byte 2    codec, as in a frame (coding/frame.c)
 *   varint    first tensor, rank, step, number of messages
 *   2 bytes   hash of the messages' hashes
 *   for each message: varint length of the body, body
 *   4 bytes   CRC-32 of everything before
 *
 * A single message has a frame of 13 bytes or more. A step of ResNet-20 at ratio 1024 is 1 KB, in 20 messages:
 * their frames are a quarter of it, and 5 % in bundles. Messages of more than MOST bytes each on average are left as
 * they are: there a bundle would gain less than 0.3 %, and cost a copy. The receiver restores the messages, so all that
 * decodes them is the same.
 */
#include "codec/codec.h"

enum { MAGIC = 0xA8, VERSION = 2, CHECKSUM = 4, LEAST_MESSAGES = 2, MOST = 1 << 12 };

static uint32_t hash_of(const atomo_codec *c, int first, int count)
{
    uint32_t crc = 0;
    for (int k = 0; k < count; k++) {
        const uint8_t hash[2] = {(uint8_t)c->plan[first + k - 1]->hash, (uint8_t)(c->plan[first + k - 1]->hash >> 8)};
        crc = atomo__crc32(crc, hash, sizeof hash);
    }
    return crc & 0xFFFF;
}

/* Writes the head of a bundle to data; returns its length. */
static size_t write_head(const atomo_codec *c, const atomo__frame *f, int count, uint8_t *data)
{
    atomo__writer w = {.data = data, .capacity = ATOMO__FRAME_MAX + 5};
    atomo__put(&w, MAGIC, 8);
    atomo__put(&w, VERSION, 8);
    atomo__put(&w, c->id, 8);
    atomo__put_varint(&w, f->tensor);
    atomo__put_varint(&w, f->rank);
    atomo__put_varint(&w, f->step);
    atomo__put_varint(&w, (uint32_t)count);
    atomo__put(&w, hash_of(c, (int)f->tensor, count), 16);
    atomo__put_align(&w);
    return w.size;
}

void atomo__bundle_plan(atomo_codec *c, int first, int count)
{
    for (int k = 0; k < count; k++) c->plan[first + k - 1]->place_in_bundle = count >= LEAST_MESSAGES ? k + 1 : 0;
}

double atomo__bundle_bytes(const atomo__plan *p, uint32_t rank, uint32_t step, double body)
{
    const atomo__frame f = atomo__frame_of(p, rank, step);
    const double frame = atomo__frame_bits(&f, 8 * body) / 8.0, length = (double)atomo__varint_bytes((uint32_t)body);
    if (!p->place_in_bundle || body > MOST) return frame;
    /* The head has one more byte than a frame, the number of messages, and the length is written for each message. */
    return p->place_in_bundle == 1 ? frame + 1 : length;
}

/* A message in a block: the offset and the length of its body, and its own length. */
typedef struct place {
    size_t begin, body, length;
} place;

static int place_of(const uint8_t *data, size_t size, place *at)
{
    double length;
    ATOMO_TRY(atomo_codec_length_of(data, (double)size, &length));
    at->length = (size_t)length;
    ATOMO_REQUIRE(at->length <= size && atomo__frame_body(data, size, &at->body), ATOMO_EINTERNAL,
                  "bundle: a message of %zu bytes in %zu", at->length, size);
    at->begin = at->length - CHECKSUM - at->body;
    return ATOMO_OK;
}

int atomo__bundle_make(const atomo_codec *c, int first, int count, double rank, double step, uint8_t *data,
                       double *size)
{
    if (count < LEAST_MESSAGES || *size > (double)MOST * count || *size == 0) return ATOMO_OK;
    const atomo__frame f = atomo__frame_of(c->plan[first - 1], (uint32_t)rank, (uint32_t)step);
    uint8_t head[ATOMO__FRAME_MAX + 5];
    const size_t start = write_head(c, &f, count, head), end = (size_t)*size;
    size_t from = 0, to = start;
    /* A body moves by what its frame was longer than its length here, so nothing is overwritten before it was read: the
     * head is as long as a frame without its length and at most 5 bytes more, the count, and the first frame has a
     * checksum and a length besides. */
    for (int k = 0; k < count; k++) {
        place at;
        ATOMO_TRY(place_of(data + from, end - from, &at));
        uint8_t length[5];
        atomo__writer w = {.data = length, .capacity = sizeof length};
        atomo__put_varint(&w, (uint32_t)at.body);
        atomo__put_align(&w);
        memmove(data + to + w.size, data + from + at.begin, at.body);
        memcpy(data + to, length, w.size);
        to += w.size + at.body;
        from += at.length;
    }
    ATOMO_REQUIRE(from == end, ATOMO_EINTERNAL, "bundle: %zu bytes follow the last message", end - from);
    memcpy(data, head, start);
    const uint32_t crc = atomo__crc32(0, data, to);
    memcpy(data + to, &crc, CHECKSUM);
    *size = (double)(to + CHECKSUM);
    return ATOMO_OK;
}

/* ---- the receiver ------------------------------------------------------------------------------------------------ */

bool atomo__is_bundle(const uint8_t *data, double size)
{
    return size > 0 && data[0] == MAGIC;
}

/* Reads bytes one after the other. */
typedef struct cursor {
    const uint8_t *data;
    size_t size, at; /* size: bytes before the checksum */
    bool bad;        /* the bundle ends too early, or a number is malformed */
} cursor;

static uint32_t next_byte(cursor *r)
{
    if (r->at < r->size) return r->data[r->at++];
    r->bad = true;
    return 0;
}

static uint32_t next_varint(cursor *r)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        const uint32_t byte = next_byte(r);
        v |= (uint64_t)(byte & 127) << shift;
        if (byte & 128) continue;
        r->bad |= v > UINT32_MAX;
        return (uint32_t)v;
    }
    r->bad = true;
    return 0;
}

/* Returns the next body, of *length bytes; NULL if the bundle ends before. */
static const uint8_t *next_body(cursor *r, uint32_t *length)
{
    *length = next_varint(r);
    r->bad |= r->size - r->at < *length;
    if (r->bad) return NULL;
    r->at += *length;
    return r->data + r->at - *length;
}

/* Reads the head: *r is then at the first length. */
static int read_head(const atomo_codec *c, const uint8_t *data, size_t size, cursor *r, atomo__frame *f,
                     uint32_t *count)
{
    *r = (cursor){.data = data, .size = size > CHECKSUM ? size - CHECKSUM : 0};
    next_byte(r);
    const uint32_t version = next_byte(r);
    f->codec = next_byte(r);
    f->tensor = next_varint(r);
    f->rank = next_varint(r);
    f->step = next_varint(r);
    *count = next_varint(r);
    uint32_t hash = next_byte(r);
    hash |= next_byte(r) << 8;
    ATOMO_REQUIRE(!r->bad, ATOMO_EFORMAT, "decode: the head of a bundle is malformed, in a block of %zu bytes", size);
    ATOMO_REQUIRE(version == VERSION, ATOMO_EFORMAT, "decode: a bundle has format version %u, expected %u",
                  (unsigned)version, (unsigned)VERSION);
    ATOMO_REQUIRE(f->codec == c->id, ATOMO_EFORMAT, "decode: a bundle has codec %u, expected %u (%s)",
                  (unsigned)f->codec, (unsigned)c->id, c->name);
    bool planned = f->tensor >= 1 && *count >= LEAST_MESSAGES && *count <= (uint32_t)c->plans &&
                   f->tensor <= (uint32_t)c->plans - *count + 1;
    for (uint32_t k = 0; planned && k < *count; k++) planned = c->plan[f->tensor + k - 1] != NULL;
    ATOMO_REQUIRE(planned, ATOMO_EFORMAT, "decode: a bundle of %u messages from tensor %u on: %d tensors are planned",
                  (unsigned)*count, (unsigned)f->tensor, c->plans);
    const uint32_t wanted = hash_of(c, (int)f->tensor, (int)*count);
    ATOMO_REQUIRE(hash == wanted, ATOMO_EFORMAT, "decode: a bundle has the hash %u of options and shapes, expected %u",
                  (unsigned)hash, (unsigned)wanted);
    return ATOMO_OK;
}

int atomo__bundle_room(const atomo_codec *c, const uint8_t *data, double size, double *room)
{
    cursor r;
    atomo__frame f;
    uint32_t count, length, crc;
    ATOMO_TRY(read_head(c, data, (size_t)size, &r, &f, &count));
    memcpy(&crc, data + r.size, CHECKSUM);
    const uint32_t found = atomo__crc32(0, data, r.size);
    ATOMO_REQUIRE(crc == found, ATOMO_EFORMAT, "decode: a bundle: its checksum is %08x, expected %08x", (unsigned)crc,
                  (unsigned)found);
    *room = 0;
    for (uint32_t k = 0; k < count; k++) {
        ATOMO_REQUIRE(next_body(&r, &length), ATOMO_EFORMAT, "decode: a bundle ends in message %u of %u, at byte %zu",
                      (unsigned)k + 1, (unsigned)count, r.size);
        *room += ATOMO__FRAME_MAX + (double)length;
    }
    ATOMO_REQUIRE(r.at == r.size, ATOMO_EFORMAT, "decode: %zu bytes follow the last message of a bundle",
                  r.size - r.at);
    return ATOMO_OK;
}

double atomo__bundle_open(const atomo_codec *c, const uint8_t *data, double size, uint8_t *out)
{
    cursor r;
    atomo__frame f;
    uint32_t count, length;
    size_t at = 0;
    if (read_head(c, data, (size_t)size, &r, &f, &count) < 0) return 0;
    for (; count > 0; count--, f.tensor++) {
        const uint8_t *body = next_body(&r, &length);
        f.hash = c->plan[f.tensor - 1]->hash;
        const size_t begin = atomo__frame_begin(&f, length);
        const atomo__writer w = {.data = out + at + begin, .size = length};
        if (length) memcpy(w.data, body, length);
        at += atomo__frame_close(&f, out + at, begin, &w);
    }
    return (double)at;
}
