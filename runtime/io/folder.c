/* folder.c - operations on folders and files for checkpoints, which must be complete or absent: make, list, rename,
 * remove, synchronise, checksum, reserve room. Error texts name the path and the reason. Path: stage 10. */
#include "io/file.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int atomo_path_kind(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0) return S_ISREG(st.st_mode) ? 1 : S_ISDIR(st.st_mode) ? 2 : 3;
    ATOMO_REQUIRE(errno == ENOENT || errno == ENOTDIR, ATOMO_EIO, "cannot look at %s: %s", path,
                  atomo__system_error(errno));
    return 0;
}

int atomo_folder_sync(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ATOMO_REQUIRE(fd >= 0, ATOMO_EIO, "cannot open the folder %s: %s", path, atomo__system_error(errno));
    const int why = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    const bool cannot = why == EINVAL || why == ENOTSUP; /* some network file systems do not support it */
    ATOMO_REQUIRE(why == 0 || cannot, ATOMO_EIO, "fsync of the folder %s: %s", path, atomo__system_error(why));
    return ATOMO_OK;
}

int atomo_folder_make(const char *path)
{
    ATOMO_REQUIRE(mkdir(path, 0777) == 0 || errno == EEXIST, ATOMO_EIO, "cannot make the folder %s: %s", path,
                  atomo__system_error(errno));
    const int kind = atomo_path_kind(path);
    if (kind < 0) return kind;
    ATOMO_REQUIRE(kind == 2, ATOMO_EIO, "cannot make the folder %s: a file has that name", path);
    return ATOMO_OK;
}

int atomo_folder_names(const char *path, char *out, double room, double *need)
{
    DIR *d = opendir(path);
    ATOMO_REQUIRE(d, ATOMO_EIO, "cannot read the folder %s: %s", path, atomo__system_error(errno));
    size_t at = 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        const size_t n = strlen(e->d_name) + 1;
        if ((double)(at + n) <= room) memcpy(out + at, e->d_name, n);
        at += n;
    }
    closedir(d);
    *need = (double)at;
    return ATOMO_OK;
}

int atomo_path_rename(const char *from, const char *to)
{
    ATOMO_REQUIRE(rename(from, to) == 0, ATOMO_EIO, "cannot rename %s to %s: %s", from, to, atomo__system_error(errno));
    return ATOMO_OK;
}

int atomo_path_remove(const char *path)
{
    const bool gone = unlink(path) == 0 || ((errno == EISDIR || errno == EPERM) && rmdir(path) == 0);
    ATOMO_REQUIRE(gone || errno == ENOENT, ATOMO_EIO, "cannot remove %s: %s", path, atomo__system_error(errno));
    return ATOMO_OK;
}

int atomo_file_checksum(const char *path, double *size, double *crc)
{
    static const size_t chunk = 1 << 20;
    FILE *f;
    int64_t n;
    uint8_t *room;
    ATOMO_TRY(atomo__file_open("checksum", path, &f, &n));
    int rc = atomo__alloc((void **)&room, chunk);
    uint32_t sum = 0;
    for (int64_t at = 0; rc == ATOMO_OK && at < n; at += (int64_t)chunk) {
        const size_t here = (size_t)ATOMO_MIN((int64_t)chunk, n - at);
        rc = atomo__file_read("checksum", path, f, at, room, here);
        if (rc == ATOMO_OK) sum = atomo__crc32(sum, room, here);
    }
    atomo__free(room);
    fclose(f);
    *size = (double)n;
    *crc = (double)sum;
    return rc;
}

/* Returns 0 or an errno value. A file system that cannot reserve room is written to instead. */
static int fill(int fd, off_t bytes)
{
    static const char zeros[1 << 16];
    const int rc = bytes > 0 ? posix_fallocate(fd, 0, bytes) : 0;
    if (rc != EOPNOTSUPP && rc != EINVAL) return rc;
    for (off_t at = 0; at < bytes;) {
        const ssize_t k = pwrite(fd, zeros, (size_t)ATOMO_MIN((off_t)sizeof zeros, bytes - at), at);
        if (k <= 0 && errno != EINTR) return k == 0 ? ENOSPC : errno;
        if (k > 0) at += k;
    }
    return 0;
}

int atomo_file_reserve(const char *path, double bytes)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    ATOMO_REQUIRE(fd >= 0, ATOMO_EIO, "cannot write %s: %s", path, atomo__system_error(errno));
    int why = fill(fd, (off_t)bytes);
    if (why == 0 && fsync(fd) != 0) why = errno;
    if (close(fd) != 0 && why == 0) why = errno;
    if (why == 0) return ATOMO_OK;
    unlink(path);
    return atomo__fail(ATOMO_EIO, "no room for %.0f bytes in %s: %s", bytes, path, atomo__system_error(why));
}
