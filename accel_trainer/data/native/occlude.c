/* Occluders in front of images, and what makes floats of bytes, with the bits of torch's functions on 32-bit floats. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

#define ALPHA 1
#define RGBA 4

typedef struct {
    const uint8_t *cover, *texture; /* of the first channel; no texture: NULL */
    float fill[3];
    int is_upside_down;
} Front;

INLINE float fraction(uint8_t value) { return (float)value / 255.0f; }

/* torch.lerp, which begins at the nearer side: that is the second from a half on, where a byte has its highest bit. */
INLINE float covered(uint8_t pixel, uint8_t cover, float fill) {
    float from = fraction(pixel), factor = fraction(cover) - (float)(cover >> 7);
    return __builtin_fmaf(factor, fill - from, cover >> 7 ? fill : from);
}

INLINE float behind(uint8_t pixel, uint8_t cover, uint8_t texture) {
    return fraction(pixel) * (1.0f - fraction(cover)) + fraction(texture);
}

INLINE uint8_t rounded(float value) {
    value = __builtin_rintf(value * 255.0f);
    value = value < 0.0f ? 0.0f : value;
    return (uint8_t)(int32_t)(value > 255.0f ? 255.0f : value);
}

/* One line of a channel to floats that are normalized: of nothing in front, a mask that is filled, one that is painted. */
INLINE void line_to_floats(float *restrict to, const uint8_t *line, const uint8_t *cover, const uint8_t *texture,
                           float fill, float mean, float std, int64_t size) {
    if (cover == NULL)
        for (int64_t x = 0; x < size; x++)
            to[x] = (fraction(line[x]) - mean) / std;
    else if (texture == NULL)
        for (int64_t x = 0; x < size; x++)
            to[x] = (covered(line[x], cover[x], fill) - mean) / std;
    else
        for (int64_t x = 0; x < size; x++)
            to[x] = (behind(line[x], cover[x], texture[x]) - mean) / std;
}

INLINE void line_to_bytes(uint8_t *line, const uint8_t *cover, const uint8_t *texture, float fill, int64_t size) {
    if (texture == NULL)
        for (int64_t x = 0; x < size; x++)
            line[x] = rounded(covered(line[x], cover[x], fill));
    else
        for (int64_t x = 0; x < size; x++)
            line[x] = rounded(behind(line[x], cover[x], texture[x]));
}

/* An image (3, size, size) to floats, or itself with bytes. front: NULL, or what is in front of it. */
INLINE void finish(uint8_t *image, int64_t size, const Front *front, const Statistics *statistics, float *out) {
    int64_t area = size * size;
    for (int64_t channel = 0; channel < 3; channel++)
        for (int64_t y = 0; y < size; y++) {
            int64_t at = channel * area + y * size, from = y;
            const uint8_t *cover = NULL, *texture = NULL;
            float fill = 0.0f;
            if (front != NULL) {
                from = front->is_upside_down ? size - 1 - y : y;
                cover = front->cover + from * size;
                texture = front->texture == NULL ? NULL : front->texture + channel * area + from * size;
                fill = front->fill[channel];
            }
            if (statistics == NULL)
                line_to_bytes(image + at, cover, texture, fill, size);
            else
                line_to_floats(out + at, image + at, cover, texture, fill, statistics->mean[channel],
                               statistics->std[channel], size);
        }
}

static void finish_plainly(uint8_t *image, int64_t size, const Front *front, const Statistics *statistics, float *out) {
    finish(image, size, front, statistics, out);
}

WITH_VECTORS static void finish_fast(uint8_t *image, int64_t size, const Front *front, const Statistics *statistics,
                                     float *out) {
    finish(image, size, front, statistics, out);
}

/* -- masks ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *mask, *cover, *texture; /* as it is stored; at the size of the images, (3, size, size) */
} Rooms;

/* Colors times opacity, rounded, in the box that is cut out: resizing would else mix in what cannot be seen. */
static void multiply_by_opacity(uint8_t *mask, const Occluder *occluder) {
    int64_t area = occluder->height * occluder->width;
    const Cut *cut = &occluder->cut;
    for (int64_t channel = 0; channel < 3; channel++)
        for (int64_t y = cut->top; y < cut->top + cut->height; y++) {
            uint8_t *restrict color = mask + channel * area + y * occluder->width + cut->left;
            const uint8_t *restrict opacity = mask + 3 * area + y * occluder->width + cut->left;
            for (int64_t x = 0; x < cut->width; x++) {
                uint32_t product = (uint32_t)color[x] * opacity[x] + 127;
                color[x] = (uint8_t)((product + 1 + (product >> 8)) >> 8); /* a 255th of it */
            }
        }
}

static int make_front(const Occluder *occluder, int64_t size, const Rooms *rooms, Front *front, int64_t may_use_vectors) {
    int64_t area = occluder->height * occluder->width, bytes = occluder->channels * area;
    const uint8_t *alpha = rooms->mask + (occluder->channels - 1) * area;
    if (!kernel_is_inside(&occluder->cut, occluder->height, occluder->width, size))
        return OUTSIDE;
    int result = kernel_read_at((int)occluder->file, rooms->mask, bytes, occluder->offset);
    if (result != OK)
        return result;
    Image image = {(int64_t)(intptr_t)alpha, 0, occluder->width, 1, occluder->height, occluder->width};
    result = kernel_cut(&image, 1, 1, &occluder->cut, size, NULL, (char *)rooms->cover, may_use_vectors);
    *front = (Front){rooms->cover, NULL, {(float)occluder->red, (float)occluder->green, (float)occluder->blue},
                     occluder->is_upside_down != 0};
    if (occluder->channels != RGBA || result != OK)
        return result;
    multiply_by_opacity(rooms->mask, occluder);
    image.address = (int64_t)(intptr_t)rooms->mask;
    image.channel = area;
    front->texture = rooms->texture;
    return kernel_cut(&image, 1, 1, &occluder->cut, size, NULL, (char *)rooms->texture, may_use_vectors);
}

int64_t kernel_mask_size(const Occluder *occluder) {
    int is_known = occluder->channels == ALPHA || occluder->channels == RGBA;
    if (!is_known || occluder->height <= 0 || occluder->width <= 0)
        return -1;
    return occluder->channels * occluder->height * occluder->width;
}

int kernel_cover(uint8_t *image, int64_t size, const Occluder *occluder, const Statistics *statistics, float *out,
                 uint8_t *room, int64_t may_use_vectors) {
    int64_t each = 3 * size * size;
    Rooms rooms = {room + 2 * each, room, room + each};
    Front front, *own = NULL;
    if (occluder != NULL) {
        own = &front;
        int result = make_front(occluder, size, &rooms, own, may_use_vectors);
        if (result != OK)
            return result;
    }
    if (own == NULL && statistics == NULL)
        return OK;
    if (may_use_vectors && kernel_has_vectors())
        finish_fast(image, size, own, statistics, out);
    else
        finish_plainly(image, size, own, statistics, out);
    return OK;
}

/* What the largest mask takes; -1 where one is not what it should be. */
static int64_t largest_mask(const Occluder *occluders, int64_t count, int64_t num_images) {
    int64_t largest = 1;
    for (const Occluder *one = occluders; one < occluders + count; one++) {
        int64_t bytes = kernel_mask_size(one);
        if (bytes < 0 || one->row < 0 || one->row >= num_images || (one > occluders && one->row <= (one - 1)->row))
            return -1;
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

/* Put occluders, in the order of their rows, in front of images (num_images, 3, size, size). statistics: then all
   images become normalized floats in `out`; without it those that have an occluder are overwritten. 0, or what is wrong
   with the first mask that is not as it should be; done: how many images are finished before that. */
int kernel_occlude(uint8_t *images, int64_t num_images, int64_t size, const Occluder *occluders, int64_t count,
                   const Statistics *statistics, float *out, int64_t *done, int64_t may_use_vectors) {
    int64_t each = 3 * size * size, largest = largest_mask(occluders, count, num_images);
    const Occluder *next = occluders, *end = occluders + count;
    *done = 0;
    if (largest < 0)
        return OUTSIDE;
    uint8_t *room = malloc((size_t)(largest + 2 * each));
    if (room == NULL)
        return NO_MEMORY;
    int result = OK;
    for (; *done < num_images; (*done)++, images += each) {
        const Occluder *own = next < end && next->row == *done ? next++ : NULL;
        float *floats = statistics == NULL ? NULL : out + *done * each;
        result = kernel_cover(images, size, own, statistics, floats, room, may_use_vectors);
        if (result != OK)
            break;
    }
    free(room);
    return result;
}

/* Bytes (count, 3, size, size) as floats, as kernel_cut makes them. */
void kernel_normalize(const uint8_t *images, int64_t count, int64_t area, const Normalization *normalization,
                      float *out) {
    for (int64_t plane = 0; plane < 3 * count; plane++, images += area, out += area) {
        float scale = normalization->scale[plane % 3], shift = normalization->shift[plane % 3];
        for (int64_t i = 0; i < area; i++)
            out[i] = (float)images[i] * scale + shift;
    }
}
