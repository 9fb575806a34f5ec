/* file.h - opening and reading files of known size, with errors that name path and offset. Private. */
#ifndef ATOMO_IO_FILE_H
#define ATOMO_IO_FILE_H

#include "core/core.h"
#include <stdio.h>

/* Opens a regular file, which the caller closes; *size = its bytes. Error texts begin with `who`, such as "cifar10".
 * EIO */
int atomo__file_open(const char *who, const char *path, FILE **out, int64_t *size);
/* Reads exactly n bytes; `offset` is their place in the file, for the error text. EIO, or EFORMAT if the file ends. */
int atomo__file_read(const char *who, const char *path, FILE *f, int64_t offset, void *into, size_t n);

#endif
