/* Files: bytes of many places in one call, and rows of images that are stored as they are. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "kernel.h"

typedef struct {
    int64_t offset, size, is_checked, checksum, address; /* is_checked: whether the bytes are compared with the CRC-32 */
} Extent;

static uint32_t crc_tables[8][256];

/* Before the first call of kernel_read. */
void kernel_prepare(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
        crc_tables[0][i] = value;
    }
    for (int table = 1; table < 8; table++)
        for (int i = 0; i < 256; i++)
            crc_tables[table][i] = crc_tables[table - 1][i] >> 8 ^ crc_tables[0][crc_tables[table - 1][i] & 255];
}

uint32_t kernel_crc32(const uint8_t *bytes, int64_t size) {
    uint32_t crc = ~0u;
    for (; size >= 8; size -= 8, bytes += 8) {
        uint32_t low = crc ^ ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24);
        crc = crc_tables[7][low & 255] ^ crc_tables[6][low >> 8 & 255] ^ crc_tables[5][low >> 16 & 255] ^
              crc_tables[4][low >> 24] ^ crc_tables[3][bytes[4]] ^ crc_tables[2][bytes[5]] ^ crc_tables[1][bytes[6]] ^
              crc_tables[0][bytes[7]];
    }
    for (; size > 0; size--, bytes++)
        crc = crc >> 8 ^ crc_tables[0][(crc ^ *bytes) & 255];
    return ~crc;
}

int kernel_read_at(int file, uint8_t *to, int64_t size, int64_t offset) {
    for (int64_t done = 0; done < size;) {
        ssize_t got = pread(file, to + done, (size_t)(size - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : TOO_SHORT;
        done += got;
    }
    return OK;
}

/* Each to its address. 0, or what is wrong with the first that is not as it should be: an errno, or one of ours. */
int kernel_read(int file, const Extent *extents, int64_t count) {
    for (const Extent *extent = extents; extent < extents + count; extent++) {
        uint8_t *to = (uint8_t *)(intptr_t)extent->address;
        int result = kernel_read_at(file, to, extent->size, extent->offset);
        if (result != OK)
            return result;
        if (extent->is_checked && kernel_crc32(to, extent->size) != (uint32_t)extent->checksum)
            return OTHER_CHECKSUM;
    }
    return OK;
}

/* What is read soon, (offset, size) of each: it need not be waited for then. A system that has no such advice does not
   take it. */
void kernel_will_need(int file, const int64_t (*places)[2], int64_t count) {
    for (const int64_t (*place)[2] = places; place < places + count; place++) {
#ifdef POSIX_FADV_WILLNEED
        (void)posix_fadvise(file, (off_t)(*place)[0], (off_t)(*place)[1], POSIX_FADV_WILLNEED);
#else
        (void)file;
#endif
    }
}

/* -- rows of a batch -------------------------------------------------------------------------------------------------- */

/* Of the index of a pack, a record of so many bytes for each image: see pack/format.py. */
enum { RECORD = 32 };

static int64_t number(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | at[i];
    return (int64_t)value;
}

/* Where images are, by their records, and images of those sizes without pixels, of one pixel where there is no image.
   checked: of which opening of the file each was compared. 0, or OUTSIDE. */
int kernel_find_stored(const uint8_t *records, int64_t num_records, const int64_t *images, int64_t count,
                       const int64_t *checked, int64_t opening, Stored *table, Image *sizes) {
    for (int64_t i = 0; i < count; i++) {
        if (images[i] < 0 || images[i] >= num_records)
            return OUTSIDE;
        const uint8_t *record = records + RECORD * images[i];
        int64_t offset = number(record, 8), size = number(record + 8, 4), name_size = number(record + 12, 4);
        int64_t height = number(record + 16, 4), width = number(record + 20, 4), checksum = number(record + 28, 4);
        table[i] = (Stored){offset, height, width, checked[images[i]] != opening, size + name_size, checksum};
        sizes[i] = (Image){0, 0, 0, 0, height > 0 ? height : 1, width > 0 ? width : 1};
    }
    return OK;
}

int64_t kernel_stored_size(const Stored *stored) {
    int64_t pixels = 3 * stored->height * stored->width;
    if (stored->height < 0 || stored->width < 0 || (stored->is_checked && stored->checked_size < pixels))
        return -1;
    return stored->is_checked ? stored->checked_size : pixels;
}

int kernel_fetch(int file, const Stored *stored, const Cut *cuts, int64_t views, uint8_t *pixels) {
    int64_t top = stored->height, bottom = 0, stride = 3 * stored->width;
    if (stored->is_checked) {
        int result = kernel_read_at(file, pixels, stored->checked_size, stored->offset);
        if (result != OK)
            return result;
        return kernel_crc32(pixels, stored->checked_size) == (uint32_t)stored->checksum ? OK : OTHER_CHECKSUM;
    }
    for (const Cut *cut = cuts; cut < cuts + views; cut++) {
        if (cut->top < 0 || cut->height <= 0 || cut->top > stored->height - cut->height)
            return OUTSIDE;
        top = cut->top < top ? cut->top : top;
        bottom = cut->top + cut->height > bottom ? cut->top + cut->height : bottom;
    }
    if (bottom <= top)
        return OK;
    return kernel_read_at(file, pixels + top * stride, (bottom - top) * stride, stored->offset + top * stride);
}

/* As kernel_cut, of images in a file. 0, or what is wrong with the first that is not as it should be. */
int kernel_cut_stored(int file, const Stored *images, int64_t num_images, int64_t views, const Cut *cuts, int64_t size,
                      const Normalization *normalization, char *out, int64_t may_use_vectors) {
    size_t each = (size_t)(views * 3 * size * size) * (normalization == NULL ? 1 : sizeof(float)), most = 1;
    int result = OK;
    for (const Stored *stored = images; stored < images + num_images; stored++) {
        int64_t read = kernel_stored_size(stored);
        if (read < 0)
            return OUTSIDE;
        most = (size_t)read > most ? (size_t)read : most;
    }
    uint8_t *pixels = malloc(most);
    if (pixels == NULL)
        return NO_MEMORY;
    for (const Stored *stored = images; stored < images + num_images && result == OK; stored++) {
        Image image = {(int64_t)(intptr_t)pixels, 1, 3 * stored->width, 3, stored->height, stored->width};
        result = kernel_fetch(file, stored, cuts, views, pixels);
        if (result == OK)
            result = kernel_cut(&image, 1, views, cuts, size, normalization, out, may_use_vectors);
        cuts += views;
        out += each;
    }
    free(pixels);
    return result;
}
