/* zip.h - reads and checks the directory of a zip archive. Private. */
#ifndef ATOMO_ZIP_H
#define ATOMO_ZIP_H

#include "core/core.h"
#include <stdio.h>

typedef struct {
    const char *name;          /* in the directory's memory */
    int64_t header, data, end; /* offsets in the file: its header, its bytes, its end */
    int64_t packed, size;      /* bytes in the file, bytes unpacked */
    uint32_t crc;              /* CRC-32 of the unpacked bytes */
    int flags, method;         /* method: 0 stored, 8 deflated */
} atomo__zip_member;

typedef struct {
    const char *path;
    FILE *f;
    int64_t bytes; /* of the file */
    int count;
    atomo__zip_member *members; /* [count] in the order of their offsets */
    uint8_t *directory;         /* the directory's bytes, with the members' names */
} atomo__zip;

/* Reads the directory; the caller has set z->path, f and bytes, and calls atomo__zip_free also after a failure.
 * EFORMAT, EIO */
int atomo__zip_read(atomo__zip *z);
void atomo__zip_free(atomo__zip *z); /* f stays open */

#endif
