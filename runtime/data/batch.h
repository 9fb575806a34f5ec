/* batch.h - makes one batch of images as floats. Private to runtime/data. */
#ifndef ATOMO_DATA_BATCH_H
#define ATOMO_DATA_BATCH_H

#include "core/core.h"

typedef struct {
    const void *images;    /* [n,h,w,c], u8 or f32 */
    const int32_t *labels; /* [n] */
    int64_t n, h, w, c;
    bool bytes, mixes;      /* the images are u8; MIXUP is one of the transforms */
    atomo_loader_options o; /* with transforms > 0: mean, std, crop and flip are turned into transforms */
    bool fused;             /* u8, and the transforms are NORMALISE, CROP, FLIP: one pass over memory */
    float *scale, *shift;   /* [w*c] each: x = pixel * scale + shift, the first transform if that is NORMALISE */
    uint8_t *row;           /* [w*c] scratch for a mirrored row */
    float *scratch;         /* [2,h*w*c], if not fused */
    int32_t *order;         /* [n] image numbers in the order of the epoch */
    double order_epoch;     /* the epoch of `order`, -1: none */
    int64_t steps;          /* of an epoch */
} atomo__batcher;

/* Checks images [n,h,w,c] and the options that change an image. EARG, ESHAPE */
int atomo__batch_check(const atomo_tensor *images, const atomo_loader_options *o);
/* x [h*w*c] = image `image`, whose pixels are at index `at` of b->images, after all transforms. A MIXUP sets *other,
 * the image mixed in, and *part, this image's part; else *part is 1. */
void atomo__batch_image(atomo__batcher *b, double epoch, uint32_t image, int64_t at, float *x, uint32_t *other,
                        float *part);

/* Sets all fields but labels, order and steps. The caller frees them, also after a failure. ENOMEM */
int atomo__batch_open(atomo__batcher *b, const atomo_tensor *images, const atomo_loader_options *o);
void atomo__batch_close(atomo__batcher *b);
/* order [n] = the order of an epoch: a shuffle keyed by (seed, epoch), or 0 ... n - 1. */
void atomo__order(double seed, double epoch, bool shuffle, int64_t n, int32_t *order);
/* A rank's part of global batch `step` is order[*first .. *first + *n); *total = images of all ranks. */
void atomo__share(int64_t n_all, int64_t batch, int64_t rank, int64_t size, int64_t step, int64_t *first, int32_t *n,
                  int32_t *total);
/* x, y = images and labels of order[first .. first + n); y is i32 [n], or f32 [n,classes] if b->mixes. EFORMAT if a
 * label is out of range. */
int atomo__batch_make(atomo__batcher *b, double epoch, int64_t first, int32_t n, float *x, void *y);

/* The random stream of an image in an epoch. Block 0 is for the first CROP (words 0, 1) and the first FLIP (word 2),
 * blocks from (k + 1) * 2^16 on for any other transform k. */
atomo_stream atomo__augment_stream(const atomo__batcher *b, double epoch, uint32_t image);
/* Returns a whole number in [0, n), n < 2^31, from 64 random bits; its bias is below 2^-22. */
uint32_t atomo__below(uint32_t hi, uint32_t lo, uint32_t n);
/* atomo__batch_image for lists of transforms that are not fused. */
void atomo__augment(atomo__batcher *b, double epoch, uint32_t image, int64_t at, float *x, uint32_t *other,
                    float *part);

#endif
