/* inflate.h - the bytes of a stretch of a file in order: as they are, deflated or gzip. Private. */
#ifndef ATOMO_INFLATE_H
#define ATOMO_INFLATE_H

#include "core/core.h"
#include <stdio.h>
#include <zlib.h>

enum { ATOMO__STORED, ATOMO__DEFLATED, ATOMO__GZIP };
enum { ATOMO__MOST_INFLATED = 1032 }; /* deflate: times the packed bytes */

typedef struct {
    const char *name; /* opens the messages: "idx: path" */
    FILE *f;
    int64_t left, at; /* packed bytes that are still unread; bytes given so far */
    int form;
    bool ended;
    z_stream z;
    uint8_t packed[1 << 14];
} atomo__inflater;

/* `packed` bytes from where f stands. Ended by atomo__inflate_close, also where it fails. */
int atomo__inflate_open(atomo__inflater *u, const char *name, FILE *f, int64_t packed, int form);
/* Exactly n bytes. EFORMAT where they end before or are damaged, EIO */
int atomo__inflate(atomo__inflater *u, void *into, int64_t n);
/* Checks that nothing follows, packed or not, and what gzip says of its length and checksum. */
int atomo__inflate_end(atomo__inflater *u);
void atomo__inflate_close(atomo__inflater *u); /* f stays open */

#endif
