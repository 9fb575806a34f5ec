/* image.h - readers of image files: PNG, JPEG and PNM. A reader returns grey or RGB bytes. Private. */
#ifndef ATOMO_IMAGE_H
#define ATOMO_IMAGE_H

#include "core/core.h"
#include <stdio.h>

enum { ATOMO__IMAGE_SIDE = 65535 }; /* the largest height and width */

typedef struct {
    const char *path; /* for error texts, which begin with "image: PATH" */
    FILE *f;          /* at the file's first byte */
    int64_t bytes;    /* of the file */
    int64_t h, w, c;  /* set by the reader; c is 1 (grey) or 3 (RGB), an alpha channel is left out */
    uint8_t *pixels; /* [h,w,c], made by the reader if `header_only` is false; the caller frees it, also after errors */
    bool header_only;
} atomo__image;

/* Sets im->h, w, c. Fails unless the sizes are in range and the file can hold an image of `least` bytes, with at most
 * `ratio` bytes of it per byte of the file: no more memory is allocated than the file's size allows. EFORMAT */
int atomo__image_sizes(atomo__image *im, double h, double w, int64_t c, double least, double ratio);
/* Makes im->pixels, of the sizes set before. ENOMEM */
int atomo__image_room(atomo__image *im);

int atomo__png_read(atomo__image *im);
int atomo__jpeg_read(atomo__image *im);
int atomo__pnm_read(atomo__image *im);

/* out u8 [h,w,c] = in u8 [ih,iw,c] scaled to cover h x w, with its centre kept. A triangle filter, as wide as a pixel
 * of the coarser grid, in each direction (Pillow's bilinear). ENOMEM */
int atomo__image_resize(const uint8_t *in, int64_t ih, int64_t iw, int64_t c, int64_t h, int64_t w, uint8_t *out);

#endif
