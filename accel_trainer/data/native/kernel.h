/* What the files of the kernel share: see __init__.py for the contract. */

#include <stdint.h>

enum { OK = 0, NO_MEMORY = -1, TOO_SHORT = -2, OTHER_CHECKSUM = -3 };

typedef struct {
    int64_t address, channel, row, column; /* of the first byte; bytes to the next channel, row and column */
    int64_t height, width;
} Image;

typedef struct {
    int64_t top, left, height, width;      /* the box that is cut out of the image */
    int64_t resized_height, resized_width; /* what it is resized to */
    int64_t window_top, window_left;       /* the square of that which is the row */
    int64_t is_flipped;
} Cut;

typedef struct {
    float scale[3], shift[3];
} Normalization;

int kernel_cut(const Image *images, int64_t num_images, int64_t views, const Cut *cuts, int64_t size,
               const Normalization *normalization, char *out, int64_t may_use_vectors);
