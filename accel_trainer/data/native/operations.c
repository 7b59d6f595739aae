/* Operations of augmentation policies on images of bytes, many in one call, with the bits of torch's.

   torch computes in 32-bit floats, each sum with a product fused to one operation (fmaf here). What depends on a byte
   alone is a table that torch has filled, and so is from where a moved pixel comes. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { LEVELS = 256 };
/* What `factors` of a step are, or what its table is. */
enum { SAME, BY_LEVEL, MOVED, SATURATION, CONTRAST, SHARPNESS, AUTO_CONTRAST, EQUALIZE };

typedef struct {
    float own, other; /* by what pixels are multiplied, and by what that which they are mixed with */
} Factors;

typedef struct {
    uint8_t *pixels;       /* three channels */
    const uint8_t *before; /* a copy */
    int64_t height, width;
} Planes;

INLINE uint8_t cut_off(float value) {
    value = value < 0.0f ? 0.0f : value;
    value = value > 255.0f ? 255.0f : value;
    return (uint8_t)(int32_t)value;
}

INLINE uint8_t mixed(float own, float other, Factors factors) {
    return cut_off(__builtin_fmaf(other, factors.other, own * factors.own));
}

/* Brightness as the eye weighs it (ITU-R 601-2), without fraction. */
INLINE int32_t luma(uint8_t red, uint8_t green, uint8_t blue) {
    return (int32_t)__builtin_fmaf(blue, 0.114f, __builtin_fmaf(green, 0.587f, (float)red * 0.2989f));
}

INLINE void saturate(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue, int64_t count,
                     Factors factors) {
    for (int64_t i = 0; i < count; i++) {
        float gray = (float)luma(red[i], green[i], blue[i]);
        red[i] = mixed(red[i], gray, factors);
        green[i] = mixed(green[i], gray, factors);
        blue[i] = mixed(blue[i], gray, factors);
    }
}

/* int32 is enough for images whose sum is a float, and of others it is not asked: see __init__.py. */
INLINE int32_t sum_of_luma(const uint8_t *red, const uint8_t *green, const uint8_t *blue, int64_t count) {
    int32_t sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += luma(red[i], green[i], blue[i]);
    return sum;
}

/* One line: away from the mean of a pixel, which counts five times, and its eight neighbors. */
INLINE void sharpen_line(uint8_t *restrict to, const uint8_t *above, const uint8_t *line, const uint8_t *below,
                         int64_t width, Factors factors) {
    for (int64_t x = 1; x < width - 1; x++) {
        int32_t sum = above[x - 1] + above[x] + above[x + 1] + line[x - 1] + 5 * line[x] + line[x + 1] + below[x - 1] +
                      below[x] + below[x + 1];
        float own = line[x], blurred = __builtin_rintf((float)sum * (float)(1.0 / 13));
        to[x] = cut_off(__builtin_fmaf(blurred - own, factors.other, own));
    }
}

INLINE void sharpen(const Planes *image, Factors factors) {
    int64_t size = image->height * image->width;
    if (image->height <= 2 || image->width <= 2)
        return;
    for (int64_t channel = 0; channel < 3; channel++)
        for (int64_t y = 1; y < image->height - 1; y++) {
            int64_t at = channel * size + y * image->width;
            const uint8_t *line = image->before + at;
            sharpen_line(image->pixels + at, line - image->width, line, line + image->width, image->width, factors);
        }
}

WITH_VECTORS static void saturate_fast(uint8_t *pixels, int64_t size, Factors factors) {
    saturate(pixels, pixels + size, pixels + 2 * size, size, factors);
}
WITH_VECTORS static int32_t sum_of_luma_fast(const uint8_t *pixels, int64_t size) {
    return sum_of_luma(pixels, pixels + size, pixels + 2 * size, size);
}
WITH_VECTORS static void sharpen_fast(const Planes *image, Factors factors) { sharpen(image, factors); }

/* -- tables of bytes ---------------------------------------------------------------------------------------------- */

static void look_up(uint8_t *pixels, int64_t count, const uint8_t table[LEVELS]) {
    for (int64_t i = 0; i < count; i++)
        pixels[i] = table[pixels[i]];
}

/* Towards the mean of the brightness, or away from it. */
static void contrast(uint8_t *pixels, int64_t size, Factors factors, int has_vectors) {
    int32_t sum = has_vectors ? sum_of_luma_fast(pixels, size)
                              : sum_of_luma(pixels, pixels + size, pixels + 2 * size, size);
    float mean = (float)sum / (float)size;
    uint8_t table[LEVELS];
    for (int level = 0; level < LEVELS; level++)
        table[level] = mixed((float)level, mean, factors);
    look_up(pixels, 3 * size, table);
}

/* From the darkest and the brightest pixel of each channel to 0 and 255. */
static void stretch(uint8_t *pixels, int64_t size) {
    uint8_t lowest = 255, highest = 0, table[LEVELS];
    for (int64_t i = 0; i < size; i++) {
        lowest = pixels[i] < lowest ? pixels[i] : lowest;
        highest = pixels[i] > highest ? pixels[i] : highest;
    }
    if (highest <= lowest)
        return;
    float scale = (float)(highest - lowest) * (float)(1.0 / 255);
    for (int level = 0; level < LEVELS; level++)
        table[level] = cut_off((float)(level - lowest) / scale);
    look_up(pixels, size, table);
}

/* As Pillow's: as many pixels of a channel up to each level as there are levels up to it. */
static void equalize(uint8_t *pixels, int64_t size) {
    int64_t counts[LEVELS] = {0}, last = 0, below = 0;
    uint8_t table[LEVELS];
    for (int64_t i = 0; i < size; i++)
        counts[pixels[i]]++;
    for (int level = 0; level < LEVELS; level++)
        last = counts[level] > 0 ? counts[level] : last;
    int64_t step = (size - last) / 255;
    if (step == 0)
        return;
    for (int level = 0; level < LEVELS; below += counts[level], level++) {
        int64_t value = (below + step / 2) / step;
        table[level] = level == 0 ? 0 : (uint8_t)(value > 255 ? 255 : value);
    }
    look_up(pixels, size, table);
}

/* -- images --------------------------------------------------------------------------------------------------------- */

/* before: each channel after a byte of 0, which is what comes from outside of the image. */
static void move(uint8_t *pixels, const uint8_t *before, int64_t size, const int32_t *sources) {
    for (int channel = 0; channel < 3; channel++, pixels += size, before += size + 1)
        for (int64_t i = 0; i < size; i++)
            pixels[i] = before[sources[i]];
}

void kernel_operate_on(uint8_t *pixels, int64_t height, int64_t width, const Step *step, uint8_t *room,
                       int has_vectors) {
    int64_t size = height * width;
    const void *address = (const void *)(intptr_t)step->address;
    Factors factors = {1, 0};
    Planes image = {pixels, room, height, width};
    if (step->kind == SATURATION || step->kind == CONTRAST || step->kind == SHARPNESS)
        memcpy(&factors, address, sizeof factors);
    switch (step->kind) {
    case BY_LEVEL:
        look_up(pixels, 3 * size, address);
        break;
    case MOVED:
        for (int channel = 0; channel < 3; channel++) {
            room[channel * (size + 1)] = 0;
            memcpy(room + channel * (size + 1) + 1, pixels + channel * size, (size_t)size);
        }
        move(pixels, room, size, address);
        break;
    case SATURATION:
        if (has_vectors)
            saturate_fast(pixels, size, factors);
        else
            saturate(pixels, pixels + size, pixels + 2 * size, size, factors);
        break;
    case CONTRAST:
        contrast(pixels, size, factors, has_vectors);
        break;
    case SHARPNESS:
        memcpy(room, pixels, (size_t)(3 * size));
        if (has_vectors)
            sharpen_fast(&image, factors);
        else
            sharpen(&image, factors);
        break;
    case AUTO_CONTRAST:
    case EQUALIZE:
        for (int channel = 0; channel < 3; channel++)
            (step->kind == EQUALIZE ? equalize : stretch)(pixels + channel * size, size);
        break;
    default:
        break;
    }
}

/* Change images (count, 3, height, width) in place, each by `num_steps` of its own, one after the other. */
int kernel_operate(uint8_t *images, int64_t count, int64_t height, int64_t width, const Step *steps, int64_t num_steps,
                   int64_t may_use_vectors) {
    int64_t each = 3 * height * width;
    int has_vectors = may_use_vectors && kernel_has_vectors();
    uint8_t *room = malloc((size_t)(each + 3));
    if (room == NULL)
        return NO_MEMORY;
    for (int64_t i = 0; i < count; i++, images += each)
        for (int64_t step = 0; step < num_steps; step++, steps++)
            kernel_operate_on(images, height, width, steps, room, has_vectors);
    free(room);
    return OK;
}
