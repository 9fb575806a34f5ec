/* zip.h - the directory of a zip archive, checked. Private. */
#ifndef ATOMO_ZIP_H
#define ATOMO_ZIP_H

#include "core/core.h"
#include <stdio.h>

typedef struct {
    const char *name;
    int64_t header, data, end; /* offsets: its local header, its bytes, what follows it */
    int64_t packed, size;      /* bytes in the file, bytes unpacked */
    uint32_t crc;
    int flags, method;
} atomo__zip_member;

typedef struct {
    const char *path;
    FILE *f;
    int64_t bytes; /* of the file */
    int count;
    atomo__zip_member *members; /* as they follow each other in the file */
    uint8_t *directory;         /* the members' names are in it */
} atomo__zip;

/* z->path, f and bytes are set. EFORMAT, EIO; atomo__zip_free in any case. */
int atomo__zip_read(atomo__zip *z);
void atomo__zip_free(atomo__zip *z); /* f stays open */

#endif
