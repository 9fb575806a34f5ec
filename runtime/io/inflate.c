/* inflate.c - reads stored, deflated, gzip and zlib bytes in order, with errors that name the file, the offset and the
 * fault. zlib's gz functions ignore data after a gzip stream that is not another stream; here that is an error.
 * Path: none. */
#include "io/inflate.h"
#include <errno.h>
#include <string.h>

int atomo__inflate_open(atomo__inflater *u, const char *name, FILE *f, int64_t packed, int form)
{
    memset(&u->z, 0, sizeof u->z);
    u->name = name;
    u->f = f;
    u->left = packed;
    u->at = 0;
    u->form = form;
    u->ended = false;
    if (form == ATOMO__STORED) return ATOMO_OK;
    static const int bits[] = {
        [ATOMO__DEFLATED] = -MAX_WBITS, [ATOMO__GZIP] = 16 + MAX_WBITS, [ATOMO__ZLIB] = MAX_WBITS};
    const int rc = inflateInit2(&u->z, bits[form]);
    ATOMO_REQUIRE(rc == Z_OK, ATOMO_ENOMEM, "%s: zlib: %s", name, zError(rc));
    return ATOMO_OK;
}

void atomo__inflate_close(atomo__inflater *u)
{
    if (u->form != ATOMO__STORED) inflateEnd(&u->z);
}

/* Reads min(n, u->left) packed bytes; *got = their number. */
static int read_packed(atomo__inflater *u, void *into, int64_t n, int64_t *got)
{
    const int64_t want = ATOMO_MIN(n, u->left);
    *got = (int64_t)fread(into, 1, (size_t)want, u->f);
    u->left -= *got;
    if (*got == want) return ATOMO_OK;
    ATOMO_REQUIRE(!ferror(u->f), ATOMO_EIO, "%s: %s", u->name, atomo__system_error(errno));
    return atomo__fail(ATOMO_EFORMAT, "%s: the file became shorter while it was read", u->name);
}

static int refill(atomo__inflater *u)
{
    int64_t got;
    if (u->z.avail_in > 0 || u->left == 0) return ATOMO_OK;
    ATOMO_TRY(read_packed(u, u->packed, sizeof u->packed, &got));
    u->z.next_in = u->packed;
    u->z.avail_in = (unsigned)got;
    return ATOMO_OK;
}

/* Ends a stream. A gzip file may contain another one after it. */
static void end_stream(atomo__inflater *u)
{
    if (u->form == ATOMO__GZIP && (u->z.avail_in > 0 || u->left > 0))
        inflateReset(&u->z);
    else
        u->ended = true;
}

/* Unpacks up to n bytes, fewer at the end; *got = their number. */
static int inflate_some(atomo__inflater *u, void *into, int64_t n, int64_t *got)
{
    u->z.next_out = into;
    u->z.avail_out = (unsigned)n;
    while (u->z.avail_out > 0 && !u->ended) {
        ATOMO_TRY(refill(u));
        const int rc = inflate(&u->z, Z_NO_FLUSH);
        const long long at = (long long)(u->at + n - u->z.avail_out);
        ATOMO_REQUIRE(rc != Z_BUF_ERROR, ATOMO_EFORMAT,
                      "%s: the packed bytes end at offset %lld, before their stream ends", u->name, at);
        ATOMO_REQUIRE(rc != Z_MEM_ERROR, ATOMO_ENOMEM, "%s: zlib: %s", u->name, zError(rc));
        ATOMO_REQUIRE(rc == Z_OK || rc == Z_STREAM_END, ATOMO_EFORMAT, "%s: damaged packed bytes at offset %lld: %s",
                      u->name, at, u->z.msg ? u->z.msg : zError(rc));
        if (rc == Z_STREAM_END) end_stream(u);
    }
    *got = n - u->z.avail_out;
    return ATOMO_OK;
}

static int some(atomo__inflater *u, void *into, int64_t n, int64_t *got)
{
    ATOMO_TRY(u->form == ATOMO__STORED ? read_packed(u, into, n, got) : inflate_some(u, into, n, got));
    u->at += *got;
    return ATOMO_OK;
}

int atomo__inflate(atomo__inflater *u, void *into, int64_t n)
{
    for (int64_t done = 0, got; done < n; done += got) {
        ATOMO_TRY(some(u, (char *)into + done, ATOMO_MIN(n - done, (int64_t)1 << 24), &got));
        ATOMO_REQUIRE(got > 0, ATOMO_EFORMAT, "%s ends at offset %lld, expected %lld more bytes", u->name,
                      (long long)u->at, (long long)(n - done));
    }
    return ATOMO_OK;
}

int atomo__inflate_end(atomo__inflater *u)
{
    const long long at = (long long)u->at;
    int64_t got;
    char more;
    ATOMO_TRY(some(u, &more, 1, &got));
    ATOMO_REQUIRE(got == 0, ATOMO_EFORMAT, "%s continues after offset %lld, where it must end by its header", u->name,
                  at);
    ATOMO_REQUIRE(u->left == 0 && u->z.avail_in == 0, ATOMO_EFORMAT, "%s: %lld bytes follow the packed ones", u->name,
                  (long long)(u->left + u->z.avail_in));
    return ATOMO_OK;
}
