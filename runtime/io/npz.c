/* npz.c - reads NumPy's .npz files, zip archives whose members are .npy files. Path: none.
 *
 * A member is decoded while it is unpacked, so only the tensor's memory is needed. A size in the archive that deflate
 * cannot produce is refused before memory is allocated. A tensor is returned only after its CRC-32 has been checked.
 */
#include "io/file.h"
#include "io/npy.h"
#include "io/inflate.h"
#include "io/zip.h"
#include <errno.h>
#include <string.h>

enum { STORED = 0, DEFLATED = 8, ENCRYPTED = 1 | 1 << 6 | 1 << 13 };

struct atomo_npz {
    atomo__zip zip;
    char path[];
};

void atomo_npz_close(atomo_npz *z)
{
    if (!z || atomo__objects_kept()) return;
    atomo__zip_free(&z->zip);
    if (z->zip.f) fclose(z->zip.f);
    atomo__free(z);
}

static int refuse_npy(const atomo__zip *z)
{
    char b[6] = {0};
    const size_t n = fread(b, 1, sizeof b, z->f);
    ATOMO_REQUIRE(n < 6 || memcmp(b, "\x93NUMPY", 6) != 0, ATOMO_EFORMAT, "npz: %s is an .npy: use atomo.from_npy",
                  z->path);
    return ATOMO_OK;
}

static int open_zip(atomo_npz *z)
{
    ATOMO_TRY(atomo__file_open("npz", z->path, &z->zip.f, &z->zip.bytes));
    ATOMO_TRY(refuse_npy(&z->zip));
    return atomo__zip_read(&z->zip);
}

int atomo_npz_open(const char *path, atomo_npz **out)
{
    void *p;
    ATOMO_REQUIRE(path && out, ATOMO_EARG, "npz_open: path or result is missing");
    const size_t n = strlen(path) + 1;
    *out = NULL;
    ATOMO_TRY(atomo__calloc(&p, sizeof(atomo_npz) + n));
    atomo_npz *z = p;
    memcpy(z->path, path, n);
    z->zip.path = z->path;
    const int rc = open_zip(z);
    if (rc < 0)
        atomo_npz_close(z);
    else
        *out = z;
    return rc;
}

int atomo_npz_count(const atomo_npz *z)
{
    return z->zip.count;
}

const char *atomo_npz_name(const atomo_npz *z, int i)
{
    return i >= 0 && i < z->zip.count ? z->zip.members[i].name : NULL;
}

/* ---- a member ---------------------------------------------------------------------------------------------------- */

typedef struct {
    atomo__inflater inflater;
    uint32_t crc;
    bool failed; /* unpacking failed, and the error text is set */
} reading;

static int read_member(void *state, int64_t offset, void *into, size_t n)
{
    reading *r = state;
    (void)offset;
    const int rc = atomo__inflate(&r->inflater, into, (int64_t)n);
    r->failed = rc < 0;
    if (rc == ATOMO_OK) r->crc = atomo__crc32(r->crc, into, n);
    return rc;
}

/* Unpacks the bytes that the decoder has not read and checks the CRC-32, so that a damaged member is distinguished from
 * one that is intact but not supported. */
static int finish(reading *r, const atomo__zip_member *m)
{
    uint8_t rest[4096];
    if (r->failed) return ATOMO_OK;
    while (r->inflater.at < m->size)
        ATOMO_TRY(read_member(r, 0, rest, (size_t)ATOMO_MIN(m->size - r->inflater.at, (int64_t)sizeof rest)));
    ATOMO_TRY(atomo__inflate_end(&r->inflater));
    ATOMO_REQUIRE(r->crc == m->crc, ATOMO_EFORMAT, "%s: CRC-32 %08x, expected %08x: it is damaged", r->inflater.name,
                  r->crc, m->crc);
    return ATOMO_OK;
}

static int decode(const atomo__zip *z, const atomo__zip_member *m, const char *name, atomo_tensor **out)
{
    reading r = {.crc = 0, .failed = false};
    const atomo__source in = {name, m->size, &r, read_member};
    char who[1200];
    snprintf(who, sizeof who, "npz: %s", name);
    ATOMO_TRY(
        atomo__inflate_open(&r.inflater, who, z->f, m->packed, m->method == STORED ? ATOMO__STORED : ATOMO__DEFLATED));
    const int rc = atomo__npy_decode(&in, out), rest = finish(&r, m);
    atomo__inflate_close(&r.inflater);
    return rest < 0 ? rest : rc;
}

static const char *method_name(int method)
{
    switch (method) {
    case 9:
        return " (deflate64)";
    case 12:
        return " (bzip2)";
    case 14:
        return " (LZMA)";
    case 93:
        return " (Zstandard)";
    case 95:
        return " (XZ)";
    default:
        return "";
    }
}

static int check_member(const atomo__zip_member *m, const char *name)
{
    ATOMO_REQUIRE(!(m->flags & ENCRYPTED), ATOMO_EFORMAT, "npz: %s is encrypted, expected it without encryption", name);
    ATOMO_REQUIRE(m->method == STORED || m->method == DEFLATED, ATOMO_EFORMAT,
                  "npz: %s is compressed by method %d%s, expected 0 (stored) or 8 (deflate)", name, m->method,
                  method_name(m->method));
    ATOMO_REQUIRE(m->method == STORED ? m->size == m->packed : m->size / ATOMO__MOST_INFLATED <= m->packed,
                  ATOMO_EFORMAT, "npz: %s: %lld bytes cannot be unpacked from %lld %s ones", name, (long long)m->size,
                  (long long)m->packed, m->method == STORED ? "stored" : "deflated");
    return ATOMO_OK;
}

int atomo_npz_read(atomo_npz *npz, int i, atomo_tensor **out)
{
    const atomo__zip *z = &npz->zip;
    ATOMO_REQUIRE(i >= 0 && i < z->count, ATOMO_EARG, "npz_read: member %d of %d", i, z->count);
    const atomo__zip_member *m = z->members + i;
    char name[1100];
    snprintf(name, sizeof name, "%.900s: '%.99s'", z->path, m->name);
    ATOMO_TRY(check_member(m, name));
    ATOMO_REQUIRE(fseeko(z->f, m->data, SEEK_SET) == 0, ATOMO_EIO, "npz: %s: %s", name, atomo__system_error(errno));
    const bool fresh = !*out;
    const int rc = decode(z, m, name, out);
    if (rc < 0 && fresh) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}
