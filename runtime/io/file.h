/* file.h - files opened for reading with their size known, for readers whose errors name path and offset. Private. */
#ifndef ATOMO_IO_FILE_H
#define ATOMO_IO_FILE_H

#include "core/core.h"
#include <stdio.h>

/* Opens a regular file; *size is its length in bytes. `who` opens the message: "cifar10". EIO */
int atomo__file_open(const char *who, const char *path, FILE **out, int64_t *size);
/* Reads exactly n bytes, the first of them at `offset` (for the message). EIO, or EFORMAT where the file ends. */
int atomo__file_read(const char *who, const char *path, FILE *f, int64_t offset, void *into, size_t n);

#endif
