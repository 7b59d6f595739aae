/* Rows of a batch from a file to what the model sees, by any number of threads at once: each takes the next image that
   nobody has taken, and does all that is done to it while it is in the processor's caches. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

/* What `kernel_make_rows` gives where all images are taken. */
#define ALL_TAKEN (-1)

typedef struct {
    int64_t next;       /* the image that is taken next */
    int64_t is_stopped; /* whether the images that are left are not made, but given back */
    int64_t file, num_images, views, size, num_steps, may_use_vectors;
    const Stored *stored;               /* one for each image */
    const Cut *cuts;                    /* one for each row, as all below */
    const Occluder *before, *after;     /* before the steps, and after them; with 0 channels: none */
    const Step *steps;                  /* num_steps for each row */
    const uint8_t *is_left;             /* of each image, whether it is given back */
    const Normalization *normalization; /* rows become floats by one of both; else they stay bytes */
    const Statistics *statistics;
    char *out;        /* (rows, 3, size, size) */
    uint8_t *is_made; /* of each image */
} Rows;

/* Memory of a thread: what is read of an image; a row of bytes; what operations take; masks. */
typedef struct {
    uint8_t *pixels, *row, *copy, *masks;
} Own;

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t largest_mask(const Occluder *occluders, int64_t count) {
    int64_t largest = 0;
    for (int64_t row = 0; occluders != NULL && row < count; row++)
        if (occluders[row].channels != 0)
            largest = larger(largest, kernel_mask_size(&occluders[row]));
    return largest;
}

/* All in one piece, which is to be freed; NULL where there is none. */
static void *make_room(const Rows *rows, Own *own) {
    int64_t row = 3 * rows->size * rows->size, num_rows = rows->num_images * rows->views, pixels = 1;
    int64_t mask = larger(largest_mask(rows->before, num_rows), largest_mask(rows->after, num_rows));
    for (int64_t i = 0; i < rows->num_images; i++)
        pixels = larger(pixels, kernel_stored_size(&rows->stored[i]));
    own->row = malloc((size_t)(row + (row + 3) + (2 * row + mask) + pixels));
    if (own->row != NULL) {
        own->copy = own->row + row;
        own->masks = own->copy + row + 3;
        own->pixels = own->masks + 2 * row + mask;
    }
    return own->row;
}

static int put_in_front(const Rows *rows, const Occluder *occluders, int64_t row, const Statistics *statistics,
                        uint8_t *bytes, float *out, const Own *own) {
    const Occluder *occluder = occluders == NULL || occluders[row].channels == 0 ? NULL : &occluders[row];
    if (occluder != NULL && kernel_mask_size(occluder) < 0)
        return OUTSIDE;
    return kernel_cover(bytes, rows->size, occluder, statistics, out, own->masks, rows->may_use_vectors);
}

static int make_row(const Rows *rows, const Image *image, int64_t row, const Own *own) {
    int64_t size = rows->size, each = 3 * size * size;
    int has_vectors = rows->may_use_vectors && kernel_has_vectors(), has_steps = rows->steps != NULL;
    int is_float = rows->normalization != NULL || rows->statistics != NULL;
    int is_only_cut = rows->before == NULL && !has_steps && rows->statistics == NULL;
    char *out = rows->out + row * each * (is_float ? (int64_t)sizeof(float) : 1);
    uint8_t *bytes = is_float && !is_only_cut ? own->row : (uint8_t *)out;
    int result = kernel_cut(image, 1, 1, &rows->cuts[row], size, is_only_cut ? rows->normalization : NULL, (char *)bytes,
                            rows->may_use_vectors);
    if (is_only_cut || result != OK)
        return result;
    if (rows->before != NULL)
        result = put_in_front(rows, rows->before, row, NULL, bytes, NULL, own);
    for (int64_t i = 0; i < rows->num_steps && has_steps && result == OK; i++)
        kernel_operate_on(bytes, size, size, &rows->steps[row * rows->num_steps + i], own->copy, has_vectors);
    if (result == OK && rows->statistics != NULL)
        return put_in_front(rows, rows->after, row, rows->statistics, bytes, (float *)out, own);
    if (result == OK && rows->normalization != NULL)
        kernel_normalize(bytes, 1, size * size, rows->normalization, (float *)out);
    return result;
}

static int make(const Rows *rows, int64_t i, const Own *own) {
    const Stored *stored = &rows->stored[i];
    Image image = {(int64_t)(intptr_t)own->pixels, 1, 3 * stored->width, 3, stored->height, stored->width};
    if (rows->is_stopped || stored->height <= 0 || stored->width <= 0 || kernel_stored_size(stored) < 0)
        return OUTSIDE;
    if (rows->is_left != NULL && rows->is_left[i])
        return OUTSIDE;
    int result = kernel_fetch((int)rows->file, stored, rows->cuts + i * rows->views, rows->views, own->pixels);
    for (int64_t row = i * rows->views; row < (i + 1) * rows->views && result == OK; row++)
        result = make_row(rows, &image, row, own);
    return result;
}

/* Make rows until all images are taken: then ALL_TAKEN. Before that, the number of an image whose rows are not made,
   which is to be made in another way; its caller calls again. */
int64_t kernel_make_rows(Rows *rows) {
    Own own;
    int64_t i = __atomic_fetch_add(&rows->next, 1, __ATOMIC_RELAXED);
    if (i >= rows->num_images)
        return ALL_TAKEN;
    void *room = make_room(rows, &own);
    for (; i < rows->num_images; i = __atomic_fetch_add(&rows->next, 1, __ATOMIC_RELAXED)) {
        if (room == NULL || make(rows, i, &own) != OK)
            break;
        rows->is_made[i] = 1;
    }
    free(room);
    return i < rows->num_images ? i : ALL_TAKEN;
}
