/* batch.h - makes one batch of images as floats. Private to runtime/data. */
#ifndef ATOMO_DATA_BATCH_H
#define ATOMO_DATA_BATCH_H

#include "core/core.h"

typedef struct {
    const uint8_t *images; /* [n,h,w,c] */
    const int32_t *labels; /* [n] */
    int64_t n, h, w, c;
    atomo_loader_options o;
    float *scale, *shift; /* [w*c] each: x = pixel * scale + shift */
    uint8_t *row;         /* [w*c] scratch for a mirrored row */
    int32_t *order;       /* [n] image numbers in the order of the epoch */
    double order_epoch;   /* the epoch of `order`, -1: none */
    int64_t steps;        /* of an epoch */
} atomo__batcher;

/* Sets order for an epoch. */
void atomo__batch_order(atomo__batcher *b, double epoch);
/* This rank's part of global batch `step` is order[*first .. *first + *n); *total = images of all ranks. */
void atomo__batch_share(const atomo__batcher *b, int64_t step, int64_t *first, int32_t *n, int32_t *total);
/* x, y = images and labels of order[first .. first + n). EFORMAT if a label is out of range. */
int atomo__batch_make(atomo__batcher *b, double epoch, int64_t first, int32_t n, float *x, int32_t *y);

#endif
