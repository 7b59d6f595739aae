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

int kernel_cut(const Image *images, int64_t num_images, int64_t views, const Cut *cuts, int64_t size,
               const Normalization *normalization, char *out, int64_t may_use_vectors);

/* Whether this processor has AVX2 and fused multiply-add. */
int kernel_has_vectors(void);

/* Whether a cut is of an image of this height and width, and its window of what that is resized to. */
int kernel_is_inside(const Cut *cut, int64_t height, int64_t width, int64_t size);

/* Bytes of a file to an address; 0, or what is wrong: an errno, or TOO_SHORT. */
int kernel_read_at(int file, uint8_t *to, int64_t size, int64_t offset);
