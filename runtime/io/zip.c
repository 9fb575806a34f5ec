/* zip.c - reads the directory of a zip archive [PKWARE APPNOTE 6.3], with 32-bit or 64-bit numbers. Path: none.
 *
 * The end record at the end of the file has the offset of the directory, and the directory those of the members. Each
 * member has its own header, with sizes there or after the data (flag 8). Values that occur twice must be equal,
 * members must not overlap, and no more memory is allocated than the file's size allows.
 */
#include "io/zip.h"
#include "io/file.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { END = 22, LOCATOR = 20, END64 = 56, ENTRY = 46, LOCAL = 30, MOST_COMMENT = 65535, LATE_SIZES = 8 };
enum { SIGN_END = 0x06054b50, SIGN_LOCATOR = 0x07064b50, SIGN_END64 = 0x06064b50, SIGN_ENTRY = 0x02014b50 };
enum { SIGN_LOCAL = 0x04034b50, SIGN_LATE = 0x08074b50 };
#define WIDE 0xFFFFFFFF /* means that a zip64 field has the value */

typedef struct {
    int64_t at;            /* offset where the directory must end */
    int64_t disks, here;   /* 0 for an archive of one file; members in this file */
    int64_t count;         /* members of the archive */
    int64_t bytes, offset; /* of the directory */
} end_record;

static int64_t u16(const uint8_t *p)
{
    return p[0] | p[1] << 8;
}

static int64_t u32(const uint8_t *p)
{
    return u16(p) | u16(p + 2) << 16;
}

static int64_t u64(const uint8_t *p) /* negative if it does not fit in int64 */
{
    return (int64_t)((uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32);
}

static int read_at(const atomo__zip *z, int64_t offset, void *into, int64_t n)
{
    ATOMO_REQUIRE(fseeko(z->f, offset, SEEK_SET) == 0, ATOMO_EIO, "npz: %s: %s", z->path, atomo__system_error(errno));
    return atomo__file_read("npz", z->path, z->f, offset, into, (size_t)n);
}

/* ---- the end record ---------------------------------------------------------------------------------------------- */

static int read_end(const atomo__zip *z, end_record *e)
{
    const int64_t n = ATOMO_MIN(z->bytes, (int64_t)END + MOST_COMMENT);
    uint8_t b[END + MOST_COMMENT];
    ATOMO_TRY(read_at(z, z->bytes - n, b, n));
    int64_t i = n - END;
    while (i >= 0 && !(u32(b + i) == SIGN_END && i + END + u16(b + i + 20) == n)) i--;
    ATOMO_REQUIRE(i >= 0, ATOMO_EFORMAT,
                  "npz: %s has no end record of a zip archive in its last %lld bytes: it is cut off or another format",
                  z->path, (long long)n);
    const uint8_t *p = b + i;
    *e = (end_record){z->bytes - n + i, u16(p + 4) | u16(p + 6), u16(p + 8), u16(p + 10), u32(p + 12), u32(p + 16)};
    return ATOMO_OK;
}

/* Sets *a, a value of the end record, to b, that of the zip64 end record. Returns whether they agree: *a was equal to b
 * or to `wide`, which refers to the zip64 record. */
static bool agrees(int64_t *a, int64_t wide, int64_t b)
{
    const bool same = b >= 0 && (*a == wide || *a == b);
    *a = b;
    return same;
}

/* Replaces the values of e by those of the zip64 end record, if there is one. */
static int widen_end(const atomo__zip *z, end_record *e)
{
    uint8_t l[LOCATOR], b[END64];
    const int64_t locator = e->at - LOCATOR;
    if (locator < 0) return ATOMO_OK;
    ATOMO_TRY(read_at(z, locator, l, LOCATOR));
    if (u32(l) != SIGN_LOCATOR) return ATOMO_OK;
    const int64_t at = u64(l + 8);
    ATOMO_REQUIRE(at >= 0 && at <= locator - END64 && u32(l + 4) == 0 && u32(l + 16) == 1, ATOMO_EFORMAT,
                  "npz: %s: offset %lld: a zip64 end record at offset %lld, expected one before offset %lld", z->path,
                  (long long)locator, (long long)at, (long long)locator);
    ATOMO_TRY(read_at(z, at, b, END64));
    ATOMO_REQUIRE(u32(b) == SIGN_END64 && u64(b + 4) == locator - at - 12, ATOMO_EFORMAT,
                  "npz: %s: offset %lld: no zip64 end record that reaches to offset %lld", z->path, (long long)at,
                  (long long)locator);
    e->at = at;
    e->disks = u32(b + 16) | u32(b + 20);
    const bool same = agrees(&e->here, 0xFFFF, u64(b + 24)) & agrees(&e->count, 0xFFFF, u64(b + 32)) &
                      agrees(&e->bytes, WIDE, u64(b + 40)) & agrees(&e->offset, WIDE, u64(b + 48));
    ATOMO_REQUIRE(same, ATOMO_EFORMAT, "npz: %s: offset %lld: the two end records differ", z->path, (long long)at);
    return ATOMO_OK;
}

static int check_end(const atomo__zip *z, const end_record *e)
{
    ATOMO_REQUIRE(e->disks == 0 && e->here == e->count, ATOMO_EFORMAT,
                  "npz: %s is a part of an archive of several files, expected one file", z->path);
    ATOMO_REQUIRE(e->offset <= e->at && e->bytes == e->at - e->offset, ATOMO_EFORMAT,
                  "npz: %s: a directory of %lld bytes at offset %lld, expected it to end at offset %lld", z->path,
                  (long long)e->bytes, (long long)e->offset, (long long)e->at);
    ATOMO_REQUIRE(e->count <= e->bytes / ENTRY, ATOMO_EFORMAT,
                  "npz: %s: %lld members, a directory of %lld bytes has at most %lld", z->path, (long long)e->count,
                  (long long)e->bytes, (long long)(e->bytes / ENTRY));
    ATOMO_REQUIRE(e->count <= INT32_MAX, ATOMO_ELIMIT, "npz: %s: %lld members, at most 2^31-1", z->path,
                  (long long)e->count);
    return ATOMO_OK;
}

/* ---- members ----------------------------------------------------------------------------------------------------- */

/* Replaces the fields that are WIDE by the values of the zip64 extra field, which are in this order. Returns false if
 * it has too few or malformed values. */
static bool widen(const uint8_t *extra, int64_t n, int64_t *const *fields, int count)
{
    int64_t room = 0, length;
    for (; n >= 4; extra += length, n -= length) {
        length = 4 + u16(extra + 2);
        if (length > n) return false;
        if (u16(extra) == 1) {
            room = length - 4;
            break;
        }
    }
    extra += 4;
    for (int i = 0; i < count; i++) {
        if (*fields[i] != WIDE) continue;
        if (room < 8) return false;
        *fields[i] = u64(extra);
        if (*fields[i] < 0) return false;
        extra += 8;
        room -= 8;
    }
    return true;
}

/* Parses the entry at p, of at most `room` bytes; *used = its length. The name is moved one byte down to make room for
 * a 0 byte after it. */
static int parse_entry(const atomo__zip *z, uint8_t *p, int64_t room, atomo__zip_member *m, int64_t *used)
{
    const long long at = (long long)(p - z->directory);
    ATOMO_REQUIRE(room >= ENTRY && u32(p) == SIGN_ENTRY, ATOMO_EFORMAT,
                  "npz: %s: byte %lld of the directory: expected the entry of a member", z->path, at);
    const int64_t name = u16(p + 28), extra = u16(p + 30);
    *used = ENTRY + name + extra + u16(p + 32);
    ATOMO_REQUIRE(*used <= room, ATOMO_EFORMAT,
                  "npz: %s: the entry at byte %lld of the directory exceeds the directory", z->path, at);
    m->flags = (int)u16(p + 8);
    m->method = (int)u16(p + 10);
    m->crc = (uint32_t)u32(p + 16);
    m->packed = u32(p + 20);
    m->size = u32(p + 24);
    m->header = u32(p + 42);
    int64_t *const fields[] = {&m->size, &m->packed, &m->header};
    const bool widened = widen(p + ENTRY + name, extra, fields, 3);
    char *text = memmove(p + ENTRY - 1, p + ENTRY, (size_t)name);
    text[name] = 0;
    m->name = text;
    ATOMO_REQUIRE(name > 0 && (int64_t)strlen(text) == name, ATOMO_EFORMAT,
                  "npz: %s: the entry at byte %lld of the directory has a name that is empty or holds a zero byte",
                  z->path, at);
    ATOMO_REQUIRE(widened, ATOMO_EFORMAT, "npz: %s: '%.99s' lacks a valid zip64 field with its sizes", z->path,
                  m->name);
    return ATOMO_OK;
}

/* Returns the length of the sizes after the data, with or without a signature, 32-bit or 64-bit; 0 if none of these
 * forms agrees with the directory. */
static int64_t late_sizes(const uint8_t *p, int64_t n, const atomo__zip_member *m)
{
    for (int64_t sign = 4; sign >= 0; sign -= 4)
        for (int64_t wide = 0; wide < 2; wide++) {
            const uint8_t *q = p + sign;
            const int64_t length = sign + (wide ? 20 : 12);
            if (length > n || (sign && u32(p) != SIGN_LATE) || u32(q) != m->crc) continue;
            const int64_t packed = wide ? u64(q + 4) : u32(q + 4), size = wide ? u64(q + 12) : u32(q + 8);
            if (packed == m->packed && size == m->size) return length;
        }
    return 0;
}

static int read_late_sizes(const atomo__zip *z, int64_t limit, atomo__zip_member *m)
{
    uint8_t b[24] = {0};
    const int64_t n = ATOMO_MIN(limit - m->end, (int64_t)sizeof b);
    ATOMO_TRY(read_at(z, m->end, b, n));
    const int64_t length = late_sizes(b, n, m);
    ATOMO_REQUIRE(length > 0, ATOMO_EFORMAT,
                  "npz: %s: '%.99s': offset %lld: the sizes and CRC-32 after the data differ from the directory's",
                  z->path, m->name, (long long)m->end);
    m->end += length;
    return ATOMO_OK;
}

/* Reads the member's own header, which must agree with the directory. */
static int read_local(const atomo__zip *z, int64_t limit, atomo__zip_member *m)
{
    uint8_t b[LOCAL + 2 * 65535];
    ATOMO_REQUIRE(m->header <= limit - LOCAL, ATOMO_EFORMAT,
                  "npz: %s: '%.99s' at offset %lld, expected it before the directory at %lld", z->path, m->name,
                  (long long)m->header, (long long)limit);
    ATOMO_TRY(read_at(z, m->header, b, LOCAL));
    const int64_t name = u16(b + 26), extra = u16(b + 28), data = m->header + LOCAL + name + extra;
    ATOMO_REQUIRE(u32(b) == SIGN_LOCAL && data <= limit && m->packed <= limit - data, ATOMO_EFORMAT,
                  "npz: %s: '%.99s': no header at offset %lld with %lld bytes behind it, before the directory at %lld",
                  z->path, m->name, (long long)m->header, (long long)m->packed, (long long)limit);
    ATOMO_TRY(read_at(z, m->header + LOCAL, b + LOCAL, name + extra));
    int64_t packed = u32(b + 18), size = u32(b + 22), crc = u32(b + 14);
    int64_t *const fields[] = {&size, &packed};
    const bool late = m->flags & LATE_SIZES;
    const bool same = widen(b + LOCAL + name, extra, fields, 2) && u16(b + 6) == m->flags && u16(b + 8) == m->method &&
                      (size_t)name == strlen(m->name) && memcmp(b + LOCAL, m->name, (size_t)name) == 0;
    ATOMO_REQUIRE(
        same && (packed == m->packed || (late && packed == 0)) && (size == m->size || (late && size == 0)) &&
            (crc == m->crc || (late && crc == 0)),
        ATOMO_EFORMAT,
        "npz: %s: '%.99s': its header at offset %lld (%lld bytes, %lld unpacked) differs from the directory's "
        "(%lld, %lld)",
        z->path, m->name, (long long)m->header, (long long)packed, (long long)size, (long long)m->packed,
        (long long)m->size);
    m->data = data;
    m->end = data + m->packed;
    return late ? read_late_sizes(z, limit, m) : ATOMO_OK;
}

static int by_offset(const void *a, const void *b)
{
    const int64_t x = ((const atomo__zip_member *)a)->header, y = ((const atomo__zip_member *)b)->header;
    return (x > y) - (x < y);
}

static int check_members(const atomo__zip *z, int64_t limit)
{
    qsort(z->members, (size_t)z->count, sizeof *z->members, by_offset);
    for (int i = 0; i < z->count; i++) {
        atomo__zip_member *m = z->members + i;
        ATOMO_TRY(read_local(z, limit, m));
        ATOMO_REQUIRE(i == 0 || m[-1].end <= m->header, ATOMO_EFORMAT,
                      "npz: %s: '%.99s' at offset %lld overlaps '%.99s', which ends at %lld", z->path, m->name,
                      (long long)m->header, m[-1].name, (long long)m[-1].end);
    }
    return ATOMO_OK;
}

static int read_directory(atomo__zip *z, const end_record *e)
{
    void *p;
    ATOMO_TRY(atomo__alloc(&p, (size_t)ATOMO_MAX(e->bytes, (int64_t)1)));
    z->directory = p;
    ATOMO_TRY(atomo__calloc(&p, (size_t)ATOMO_MAX(e->count, (int64_t)1) * sizeof *z->members));
    z->members = p;
    ATOMO_TRY(read_at(z, e->offset, z->directory, e->bytes));
    int64_t at = 0, used = 0;
    for (; z->count < e->count; z->count++, at += used)
        ATOMO_TRY(parse_entry(z, z->directory + at, e->bytes - at, z->members + z->count, &used));
    ATOMO_REQUIRE(at == e->bytes, ATOMO_EFORMAT, "npz: %s: a directory of %lld bytes, its %d members take %lld",
                  z->path, (long long)e->bytes, z->count, (long long)at);
    return check_members(z, e->offset);
}

int atomo__zip_read(atomo__zip *z)
{
    end_record e;
    ATOMO_TRY(read_end(z, &e));
    ATOMO_TRY(widen_end(z, &e));
    ATOMO_TRY(check_end(z, &e));
    return read_directory(z, &e);
}

void atomo__zip_free(atomo__zip *z)
{
    atomo__free(z->members);
    atomo__free(z->directory);
}
