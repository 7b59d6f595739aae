/* What the files of the kernel share: see __init__.py for the contract. */

#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_AVX2 1
#else
#define HAS_AVX2 0
#endif

/* What rounds, compiled twice: with vectors, where the compiler makes them of it, and without. */
#if HAS_AVX2
#define WITH_VECTORS __attribute__((target("avx2,fma")))
#else
#define WITH_VECTORS
#endif
#define INLINE static inline __attribute__((always_inline))

/* What functions give, or an errno; OUTSIDE: of a box that is not in its image. */
enum { OK = 0, NO_MEMORY = -1, TOO_SHORT = -2, OTHER_CHECKSUM = -3, OUTSIDE = -4 };

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

/* An image whose pixels (height, width, 3) are in a file. */
typedef struct {
    int64_t offset, height, width;
    int64_t is_checked, checked_size, checksum; /* whether these bytes from there on are compared with their CRC-32 */
} Stored;

/* What is done to an image: operations.c has the kinds. */
typedef struct {
    int64_t kind, address; /* of 256 bytes; of an int32 for each pixel: 0, or one more than where it is; of two factors */
} Step;

typedef struct {
    int64_t row;                              /* of the image that it is in front of */
    int64_t file, offset;                     /* where its mask is: bytes (channels, height, width) */
    int64_t channels, height, width;          /* 1: opacity; 4: colors, and then opacity */
    Cut cut;                                  /* of the mask */
    int64_t is_upside_down;
    double red, green, blue;                  /* 0..1: what a mask of one channel is filled with */
} Occluder;

typedef struct {
    float mean[3], std[3];
} Statistics;

int kernel_cut(const Image *images, int64_t num_images, int64_t views, const Cut *cuts, int64_t size,
               const Normalization *normalization, char *out, int64_t may_use_vectors);

/* Whether this processor has AVX2 and fused multiply-add. */
int kernel_has_vectors(void);

/* Whether a cut is of an image of this height and width, and its window of what that is resized to. */
int kernel_is_inside(const Cut *cut, int64_t height, int64_t width, int64_t size);

/* Bytes of a file to an address; 0, or what is wrong: an errno, or TOO_SHORT. */
int kernel_read_at(int file, uint8_t *to, int64_t size, int64_t offset);

/* The pixels that the cuts of an image need, or all of it where it is compared; pixels: room for kernel_stored_size. */
int kernel_fetch(int file, const Stored *stored, const Cut *cuts, int64_t views, uint8_t *pixels);

/* The bytes that are read of an image at most; -1 where that is not what it should be. */
int64_t kernel_stored_size(const Stored *stored);

/* Change one image (3, height, width) in place; room: 3 * height * width + 3 bytes. */
void kernel_operate_on(uint8_t *pixels, int64_t height, int64_t width, const Step *step, uint8_t *room, int has_vectors);

/* The bytes of a mask; -1 where it is not what it should be. */
int64_t kernel_mask_size(const Occluder *occluder);

/* Put an occluder, or none (NULL), in front of one image (3, size, size): with statistics to normalized floats in
   `out`, else to itself. room: the bytes of the mask, and twice those of the image. */
int kernel_cover(uint8_t *image, int64_t size, const Occluder *occluder, const Statistics *statistics, float *out,
                 uint8_t *room, int64_t may_use_vectors);

/* Bytes (count, 3, area) as floats, as kernel_cut makes them. */
void kernel_normalize(const uint8_t *images, int64_t count, int64_t area, const Normalization *normalization, float *out);
