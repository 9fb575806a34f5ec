/* file.c - opens and reads files, with errors that name path, offset, found and expected; the terminal's width. */
#include "io/file.h"
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

int atomo__file_open(const char *who, const char *path, FILE **out, int64_t *size)
{
    struct stat st;
    *out = NULL;
    ATOMO_REQUIRE(path && *path, ATOMO_EARG, "%s: the path is empty", who);
    FILE *f = fopen(path, "rb");
    ATOMO_REQUIRE(f, ATOMO_EIO, "%s: cannot open %s: %s", who, path, atomo__system_error(errno));
    int rc = fstat(fileno(f), &st);
    if (rc != 0 || !S_ISREG(st.st_mode)) {
        int why = errno;
        fclose(f);
        return atomo__fail(ATOMO_EIO, "%s: %s: %s", who, path,
                           rc != 0 ? atomo__system_error(why) : "is not a regular file");
    }
    *size = (int64_t)st.st_size;
    *out = f;
    return ATOMO_OK;
}

int atomo__file_read(const char *who, const char *path, FILE *f, int64_t offset, void *into, size_t n)
{
    size_t got = fread(into, 1, n, f);
    if (got == n) return ATOMO_OK;
    if (ferror(f))
        return atomo__fail(ATOMO_EIO, "%s: %s: reading at offset %lld: %s", who, path,
                           (long long)offset + (long long)got, atomo__system_error(errno));
    return atomo__fail(ATOMO_EFORMAT, "%s: %s ends at offset %lld, expected %zu more bytes", who, path,
                       (long long)offset + (long long)got, n - got);
}

int atomo_terminal_width(int fd)
{
    struct winsize w;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 ? w.ws_col : 0;
}
