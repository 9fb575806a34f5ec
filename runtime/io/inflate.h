/* inflate.h - reads bytes of a part of a file in order, which are stored, deflated, gzip or zlib. Private. */
#ifndef ATOMO_INFLATE_H
#define ATOMO_INFLATE_H

#include "core/core.h"
#include <stdio.h>
#include <zlib.h>

enum { ATOMO__STORED, ATOMO__DEFLATED, ATOMO__GZIP, ATOMO__ZLIB };
enum { ATOMO__MOST_INFLATED = 1032 }; /* the largest ratio of unpacked to packed bytes in deflate */

typedef struct {
    const char *name; /* begin of error texts: "idx: path" */
    FILE *f;
    int64_t left, at; /* packed bytes not read yet; unpacked bytes returned so far */
    int form;         /* ATOMO__STORED, ATOMO__DEFLATED, ... */
    bool ended;       /* the last stream has ended */
    z_stream z;
    uint8_t packed[1 << 14]; /* buffer for z */
} atomo__inflater;

/* Begins to read `packed` bytes at f's position. The caller calls atomo__inflate_close after a success. */
int atomo__inflate_open(atomo__inflater *u, const char *name, FILE *f, int64_t packed, int form);
/* Unpacks exactly n bytes. EFORMAT if there are fewer or if they are damaged; EIO */
int atomo__inflate(atomo__inflater *u, void *into, int64_t n);
/* Checks that neither packed nor unpacked bytes are left, and the checksum of gzip and zlib. EFORMAT */
int atomo__inflate_end(atomo__inflater *u);
void atomo__inflate_close(atomo__inflater *u); /* f stays open */

#endif
