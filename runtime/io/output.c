/* output.c - writes all text of the program: logs, tables, drawings, standard output. A write is complete, or returns
 * an error status. Lua's file:write is not used because it can lose an error: if LuaJIT has compiled it, a failed write
 * leaves the trace and is repeated by the interpreter, and the second write, of an empty buffer, succeeds. LuaJIT never
 * repeats a call to a C function. Path: stage 10. */
#include "core/core.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int atomo_output_open(const char *path, int append)
{
    ATOMO_REQUIRE(path && *path, ATOMO_EARG, "the path is empty");
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0666);
    ATOMO_REQUIRE(fd >= 0, ATOMO_EIO, "cannot write %s: %s", path, atomo__system_error(errno));
    return fd;
}

int atomo_output_write(int fd, const char *path, const void *data, double n)
{
    const char *from = data;
    for (size_t left = (size_t)n; left > 0;) {
        const ssize_t k = write(fd, from, left);
        if (k < 0 && errno == EINTR) continue;
        ATOMO_REQUIRE(k >= 0, ATOMO_EIO, "writing %s: %s", path, atomo__system_error(errno));
        ATOMO_REQUIRE(k > 0, ATOMO_EIO, "writing %s: %zu bytes could not be written", path, left);
        from += k;
        left -= (size_t)k;
    }
    return ATOMO_OK;
}

int atomo_output_close(int fd, const char *path)
{
    ATOMO_REQUIRE(close(fd) == 0 || errno == EINTR, ATOMO_EIO, "closing %s: %s", path, atomo__system_error(errno));
    return ATOMO_OK;
}

int atomo_output_save(const char *path, const void *data, double n)
{
    return atomo_raw_write(path, data, n, NULL, 0);
}

int atomo_output_print(const void *data, double n, int flush)
{
    errno = 0;
    const bool whole = fwrite(data, 1, (size_t)n, stdout) == (size_t)n && (!flush || fflush(stdout) == 0);
    ATOMO_REQUIRE(whole && !ferror(stdout), ATOMO_EIO, "writing standard output: %s",
                  errno ? atomo__system_error(errno) : "an earlier write failed");
    return ATOMO_OK;
}
