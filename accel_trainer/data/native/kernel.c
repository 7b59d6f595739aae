/* Rows of a batch, many in one call: see __init__.py for the contract.

   Plain C without Python: the library is called by ctypes, which lets go of the interpreter's lock meanwhile. All
   arithmetic on pixels is on integers or rounded after each step, so that every processor and compiler gives the same
   bits, and the same as torch: build with -ffp-contract=off, never with -ffast-math. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

#if HAS_AVX2
#include <immintrin.h>
#endif

#define VERSION 4
/* Bytes of a pixel between the two passes: red, green, blue, and one that is not used. */
#define PIXEL 4
/* Rows that are resized sideways at once. */
#define AT_ONCE 4
/* What vector instructions may read behind the end of a row. */
#define PADDING 32

int kernel_version(void) { return VERSION; }

int kernel_has_vectors(void) {
#if HAS_AVX2
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

/* -- crops -------------------------------------------------------------------------------------------------------- */

typedef struct {
    double low_area, high_area, low_log_ratio, high_log_ratio, low_ratio, high_ratio, flipped_below;
    int64_t tries, size;
} CropRules;

static double between(double low, double high, double number) { return low + (high - low) * number; }

static int try_box(const double *numbers, const CropRules *rules, Cut *cut, int64_t height, int64_t width) {
    for (int64_t i = 0; i < rules->tries; i++) {
        double area = (double)(height * width) * between(rules->low_area, rules->high_area, numbers[2 * i]);
        double ratio = exp(between(rules->low_log_ratio, rules->high_log_ratio, numbers[2 * i + 1]));
        double w = rint(sqrt(area * ratio)), h = rint(sqrt(area / ratio));
        if (0 < w && w <= (double)width && 0 < h && h <= (double)height) {
            cut->height = (int64_t)h;
            cut->width = (int64_t)w;
            cut->top = (int64_t)(numbers[2 * rules->tries] * (double)(height - cut->height + 1));
            cut->left = (int64_t)(numbers[2 * rules->tries + 1] * (double)(width - cut->width + 1));
            return 1;
        }
    }
    return 0;
}

static void middle_box(const CropRules *rules, Cut *cut, int64_t height, int64_t width) {
    double ratio = (double)width / (double)height;
    cut->height = ratio < rules->low_ratio ? (int64_t)rint((double)width / rules->low_ratio) : height;
    cut->width = ratio > rules->high_ratio ? (int64_t)rint((double)height * rules->high_ratio) : width;
    cut->top = (height - cut->height) / 2;
    cut->left = (width - cut->width) / 2;
}

/* As geometry.crop_box, for `views` rows of each image. numbers: (rows, 2 * tries + 3). */
void kernel_random_crops(const Image *images, int64_t num_images, int64_t views, const double *numbers,
                         const CropRules *rules, Cut *cuts) {
    int64_t each = 2 * rules->tries + 3;
    for (int64_t row = 0; row < num_images * views; row++, numbers += each, cuts++) {
        const Image *image = &images[row / views];
        memset(cuts, 0, sizeof *cuts);
        if (!try_box(numbers, rules, cuts, image->height, image->width))
            middle_box(rules, cuts, image->height, image->width);
        cuts->resized_height = cuts->resized_width = rules->size;
        cuts->is_flipped = numbers[each - 1] < rules->flipped_below;
    }
}

/* -- one axis of a resize ------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t *start; /* first source pixel of each result */
    int16_t *weights;
    int64_t taps;   /* weights of each result, an even number; beyond those it has they are 0 */
    int64_t most;   /* how many are not 0 */
    int precision;  /* bits of the weights behind the point */
} Axis;

typedef struct {
    void *memory;
    size_t size;
} Room;

/* Room for so many bytes; what was in it is lost. */
static void *room_for(Room *room, size_t size) {
    if (size > room->size) {
        free(room->memory);
        room->memory = malloc(size);
        room->size = room->memory == NULL ? 0 : size;
    }
    return room->memory;
}

static double triangle(double x) {
    x = x < 0 ? -x : x;
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* The antialiased weights of torch's resize of bytes (after Pillow's): doubles that add up to 1, then integers of as
   many bits as the largest leaves room for. All `to` results count for that, also those outside of the window. */
static int weigh(Axis *axis, Room *room, int64_t from, int64_t to) {
    double scale = (double)from / (double)to, support = scale >= 1.0 ? scale : 1.0;
    double inverse = scale >= 1.0 ? 1.0 / scale : 1.0, largest = 0;
    int64_t most = (int64_t)ceil(support) * 2 + 1, taps = most + most % 2;
    size_t count = (size_t)(to * taps), starts = sizeof(int64_t) * (size_t)to;
    char *memory = room_for(room, starts + count * (sizeof(double) + sizeof(int16_t)));
    if (memory == NULL)
        return NO_MEMORY;
    double *exact = (double *)(memory + starts);
    axis->start = (int64_t *)memory;
    axis->weights = (int16_t *)(memory + starts + count * sizeof(double));
    axis->taps = taps;
    axis->most = 1;
    memset(exact, 0, count * sizeof(double));
    for (int64_t i = 0; i < to; i++) {
        double center = scale * ((double)i + 0.5), total = 0, *own = exact + i * taps;
        int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = (end > from ? from : end) - first;
        end = end < 0 ? 0 : end > most ? most : end;
        for (int64_t j = 0; j < end; j++)
            total += own[j] = triangle(((double)(j + first) - center + 0.5) * inverse);
        for (int64_t j = 0; j < end && total != 0; j++) {
            own[j] /= total;
            largest = own[j] > largest ? own[j] : largest;
        }
        axis->start[i] = first;
        axis->most = end > axis->most ? end : axis->most;
    }
    for (axis->precision = 0; axis->precision < 22; axis->precision++)
        if ((int)(0.5 + largest * (1 << (axis->precision + 1))) >= 1 << 15)
            break;
    for (size_t i = 0; i < count; i++)
        axis->weights[i] = (int16_t)(int)(0.5 + exact[i] * (1 << axis->precision));
    return OK;
}

static uint8_t byte(int32_t value) { return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); }

/* -- sideways: rows of RGB to rows of PIXEL bytes, as many as the window is wide -------------------------------------- */

static void sideways(uint8_t *out[AT_ONCE], const uint8_t *in[AT_ONCE], const Axis *axis, const Cut *cut,
                     int64_t size) {
    int32_t half = 1 << (axis->precision - 1);
    for (int64_t x = 0; x < size; x++) {
        int64_t from = x + cut->window_left, to = PIXEL * (cut->is_flipped ? size - 1 - x : x);
        const int16_t *weights = axis->weights + from * axis->taps;
        for (int row = 0; row < AT_ONCE; row++) {
            const uint8_t *pixel = in[row] + 3 * axis->start[from];
            int32_t red = half, green = half, blue = half;
            for (int64_t j = 0; j < axis->most; j++, pixel += 3) {
                red += weights[j] * pixel[0];
                green += weights[j] * pixel[1];
                blue += weights[j] * pixel[2];
            }
            out[row][to] = byte(red >> axis->precision);
            out[row][to + 1] = byte(green >> axis->precision);
            out[row][to + 2] = byte(blue >> axis->precision);
        }
    }
}

/* -- down: one row of the result from rows of PIXEL bytes ------------------------------------------------------------- */

typedef struct {
    void *first;     /* of the row in the first channel */
    int64_t channel; /* pixels to the next channel */
} Target;

static void down(Target target, const uint8_t *const *rows, const int16_t *weights, int64_t taps, int precision,
                 const Normalization *normalization, int64_t size) {
    int32_t half = 1 << (precision - 1);
    for (int channel = 0; channel < 3; channel++) {
        uint8_t *bytes = (uint8_t *)target.first + channel * target.channel;
        float *floats = (float *)target.first + channel * target.channel;
        for (int64_t x = 0; x < size; x++) {
            int32_t sum = half;
            for (int64_t j = 0; j < taps; j++)
                sum += weights[j] * rows[j][PIXEL * x + channel];
            uint8_t value = byte(sum >> precision);
            if (normalization == NULL)
                bytes[x] = value;
            else
                floats[x] = (float)value * normalization->scale[channel] + normalization->shift[channel];
        }
    }
}

/* -- the same with vectors -------------------------------------------------------------------------------------------- */

#if HAS_AVX2
#define AVX2 __attribute__((target("avx2")))

/* 8 bytes at each of two places, side by side. */
AVX2 static inline __m256i two(const uint8_t *low, const uint8_t *high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)low)),
                                   _mm_loadl_epi64((const __m128i *)high), 1);
}

AVX2 static inline int32_t pair(const int16_t *weights) {
    int32_t both;
    memcpy(&both, weights, sizeof both);
    return both;
}

AVX2 static void sideways_avx2(uint8_t *out[AT_ONCE], const uint8_t *in[AT_ONCE], const Axis *axis, const Cut *cut,
                               int64_t size) {
    /* Two pixels of 3 bytes to (red, red), (green, green), (blue, blue) of 16 bits, in each half. */
    const __m256i spread = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 0, -1, 3, -1, 1,
                                            -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m256i half = _mm256_set1_epi32(1 << (axis->precision - 1));
    const __m128i precision = _mm_cvtsi32_si128(axis->precision);
    for (int64_t x = 0; x < size; x++) {
        int64_t from = x + cut->window_left, to = PIXEL * (cut->is_flipped ? size - 1 - x : x);
        const int16_t *weights = axis->weights + from * axis->taps;
        int64_t at = 3 * axis->start[from];
        __m256i first = half, second = half;
        for (int64_t j = 0; j < axis->most; j += 2, at += 6) {
            __m256i both = _mm256_set1_epi32(pair(weights + j));
            __m256i one = _mm256_shuffle_epi8(two(in[0] + at, in[1] + at), spread);
            __m256i other = _mm256_shuffle_epi8(two(in[2] + at, in[3] + at), spread);
            first = _mm256_add_epi32(first, _mm256_madd_epi16(one, both));
            second = _mm256_add_epi32(second, _mm256_madd_epi16(other, both));
        }
        first = _mm256_sra_epi32(first, precision);
        second = _mm256_sra_epi32(second, precision);
        __m256i words = _mm256_packs_epi32(first, second);
        __m256i bytes = _mm256_packus_epi16(words, words); /* rows 0 and 2, rows 1 and 3 */
        int64_t even = _mm_cvtsi128_si64(_mm256_castsi256_si128(bytes));
        int64_t odd = _mm_cvtsi128_si64(_mm256_extracti128_si256(bytes, 1));
        int32_t pixels[AT_ONCE] = {(int32_t)even, (int32_t)odd, (int32_t)(even >> 32), (int32_t)(odd >> 32)};
        for (int row = 0; row < AT_ONCE; row++)
            memcpy(out[row] + to, &pixels[row], PIXEL);
    }
}

/* 4 pixels, 16 bytes, from all rows: the sums of the first two and of the last two. */
AVX2 static inline void sum_of(__m256i sums[2], const uint8_t *const *rows, int64_t at, const int16_t *weights,
                               int64_t taps, __m256i half, __m128i precision) {
    __m256i low = half, high = half;
    for (int64_t j = 0; j < taps; j += 2) {
        __m256i both = _mm256_set1_epi32(pair(weights + j));
        __m128i upper = _mm_loadu_si128((const __m128i *)(rows[j] + at));
        __m128i lower = _mm_loadu_si128((const __m128i *)(rows[j + 1] + at));
        __m256i first = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(upper, lower));
        __m256i last = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(upper, lower));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(first, both));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(last, both));
    }
    sums[0] = _mm256_sra_epi32(low, precision);
    sums[1] = _mm256_sra_epi32(high, precision);
}

/* 8 pixels as bytes, all of a channel side by side: red and green, blue and nothing. */
AVX2 static inline void as_bytes(uint8_t out[3][8], const __m256i sums[4]) {
    const __m256i by_channel = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1,
                                                5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m256i words[2] = {_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3])};
    __m256i bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(words[0], words[1]), by_channel);
    __m128i even = _mm256_castsi256_si128(bytes), odd = _mm256_extracti128_si256(bytes, 1);
    _mm_storeu_si128((__m128i *)out[0], _mm_unpacklo_epi8(even, odd));
    _mm_storel_epi64((__m128i *)out[2], _mm_unpackhi_epi8(even, odd));
}

/* 8 pixels as normalized floats, all of a channel side by side. */
AVX2 static inline void as_floats(__m256 out[3], const __m256i sums[4], const Normalization *normalization) {
    const __m256i least = _mm256_setzero_si256(), largest = _mm256_set1_epi32(255);
    const float *a = normalization->scale, *b = normalization->shift;
    const __m256 scale = _mm256_setr_ps(a[0], a[1], a[2], 0, a[0], a[1], a[2], 0);
    const __m256 shift = _mm256_setr_ps(b[0], b[1], b[2], 0, b[0], b[1], b[2], 0);
    __m256 pixels[4];
    for (int i = 0; i < 4; i++) {
        __m256i value = _mm256_min_epi32(_mm256_max_epi32(sums[i], least), largest);
        pixels[i] = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(value), scale), shift);
    }
    /* Pixels 0 and 4, 1 and 5, 2 and 6, 3 and 7; then channels. */
    __m256 p0 = _mm256_permute2f128_ps(pixels[0], pixels[2], 0x20), p1 = _mm256_permute2f128_ps(pixels[0], pixels[2], 0x31);
    __m256 p2 = _mm256_permute2f128_ps(pixels[1], pixels[3], 0x20), p3 = _mm256_permute2f128_ps(pixels[1], pixels[3], 0x31);
    __m256 low = _mm256_unpacklo_ps(p0, p1), high = _mm256_unpacklo_ps(p2, p3);
    out[0] = _mm256_shuffle_ps(low, high, 0x44);
    out[1] = _mm256_shuffle_ps(low, high, 0xEE);
    out[2] = _mm256_shuffle_ps(_mm256_unpackhi_ps(p0, p1), _mm256_unpackhi_ps(p2, p3), 0x44);
}

AVX2 static void down_avx2(Target target, const uint8_t *const *rows, const int16_t *weights, int64_t taps,
                           int precision_, const Normalization *normalization, int64_t size) {
    const __m256i half = _mm256_set1_epi32(1 << (precision_ - 1));
    const __m128i precision = _mm_cvtsi32_si128(precision_);
    for (int64_t x = 0; x < size; x += 8) {
        __m256i sums[4];
        size_t count = (size_t)(size - x < 8 ? size - x : 8);
        sum_of(sums, rows, PIXEL * x, weights, taps, half, precision);
        sum_of(sums + 2, rows, PIXEL * x + 16, weights, taps, half, precision);
        if (normalization == NULL) {
            uint8_t bytes[3][8], *place = (uint8_t *)target.first + x;
            as_bytes(bytes, sums);
            for (int channel = 0; channel < 3; channel++, place += target.channel)
                memcpy(place, bytes[channel], count);
            continue;
        }
        __m256 floats[3];
        float *place = (float *)target.first + x;
        as_floats(floats, sums, normalization);
        for (int channel = 0; channel < 3; channel++, place += target.channel) {
            if (count == 8)
                _mm256_storeu_ps(place, floats[channel]);
            else
                memcpy(place, &floats[channel], count * sizeof(float));
        }
    }
}
#endif

/* -- a row ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    Room across, down, box_rows, ring, pointers;
} Scratch;

/* One row of a box as RGB, with room behind it. */
static void gather(uint8_t *out, const Image *image, const Cut *cut, int64_t row) {
    const uint8_t *from = (const uint8_t *)(intptr_t)image->address + (cut->top + row) * image->row + cut->left * image->column;
    if (image->channel == 1 && image->column == 3) {
        memcpy(out, from, (size_t)(3 * cut->width));
        return;
    }
    const uint8_t *red = from, *green = red + image->channel, *blue = green + image->channel;
    int64_t step = image->column;
    for (int64_t x = 0; x < cut->width; x++, out += 3) {
        out[0] = red[x * step];
        out[1] = green[x * step];
        out[2] = blue[x * step];
    }
}

int kernel_is_inside(const Cut *cut, int64_t height, int64_t width, int64_t size) {
    return cut->top >= 0 && cut->left >= 0 && cut->height > 0 && cut->width > 0 && cut->top <= height - cut->height &&
           cut->left <= width - cut->width && cut->window_top >= 0 && cut->window_left >= 0 &&
           cut->window_top <= cut->resized_height - size && cut->window_left <= cut->resized_width - size;
}

/* Rows are resized sideways as they are needed, and kept in a ring that stays in the processor's cache. */
static int render(const Image *image, const Cut *cut, int64_t size, const Normalization *normalization, char *out,
                  Scratch *scratch, int has_vectors) {
    Axis across, along;
    if (!kernel_is_inside(cut, image->height, image->width, size))
        return OUTSIDE;
    if (weigh(&across, &scratch->across, cut->width, cut->resized_width) ||
        weigh(&along, &scratch->down, cut->height, cut->resized_height))
        return NO_MEMORY;
    int64_t slots = along.taps + 2 * AT_ONCE, stride = PIXEL * ((size + 7) / 8 * 8) + PADDING;
    int64_t box_stride = 3 * (cut->width + across.taps) + PADDING;
    uint8_t *box = room_for(&scratch->box_rows, (size_t)(AT_ONCE * box_stride));
    uint8_t *ring = room_for(&scratch->ring, (size_t)(slots * stride));
    const uint8_t **rows = room_for(&scratch->pointers, sizeof *rows * (size_t)along.taps);
    if (box == NULL || ring == NULL || rows == NULL)
        return NO_MEMORY;
    memset(box, 0, (size_t)(AT_ONCE * box_stride));
    memset(ring, 0, (size_t)(slots * stride));
    int64_t done = 0; /* rows of the box up to here are, or were, in the ring */
    for (int64_t y = 0; y < size; y++) {
        int64_t to = y + cut->window_top, start = along.start[to];
        int64_t end = start + along.most < cut->height ? start + along.most : cut->height;
        if (done < start)
            done = start; /* nobody needs the rows between */
        for (; done < end; done += AT_ONCE) {
            const uint8_t *in[AT_ONCE];
            uint8_t *resized[AT_ONCE];
            for (int i = 0; i < AT_ONCE; i++) {
                resized[i] = ring + (done + i) % slots * stride;
                in[i] = box + i * box_stride;
                if (done + i < cut->height)
                    gather(box + i * box_stride, image, cut, done + i);
            }
#if HAS_AVX2
            if (has_vectors)
                sideways_avx2(resized, in, &across, cut, size);
            else
#endif
                sideways(resized, in, &across, cut, size);
        }
        for (int64_t j = 0; j < along.taps; j++)
            rows[j] = ring + (start + j) % slots * stride; /* where there is no such row its weight is 0 */
        int64_t place = y * size;
        Target target = {normalization == NULL ? (void *)(out + place) : (void *)((float *)out + place), size * size};
        const int16_t *weights = along.weights + to * along.taps;
        int64_t taps = along.most + along.most % 2;
#if HAS_AVX2
        if (has_vectors)
            down_avx2(target, rows, weights, taps, along.precision, normalization, size);
        else
#endif
            down(target, rows, weights, taps, along.precision, normalization, size);
    }
    return OK;
}

/* `views` rows of each image: uint8, or float32 with a normalization, (rows, 3, size, size). */
int kernel_cut(const Image *images, int64_t num_images, int64_t views, const Cut *cuts, int64_t size,
               const Normalization *normalization, char *out, int64_t may_use_vectors) {
    Scratch scratch;
    int result = OK, has_vectors = may_use_vectors && kernel_has_vectors();
    size_t each = (size_t)(3 * size * size) * (normalization == NULL ? 1 : sizeof(float));
    memset(&scratch, 0, sizeof scratch);
    for (int64_t row = 0; row < num_images * views && result == OK; row++)
        result = render(&images[row / views], &cuts[row], size, normalization, out + (size_t)row * each, &scratch,
                        has_vectors);
    free(scratch.across.memory);
    free(scratch.down.memory);
    free(scratch.box_rows.memory);
    free(scratch.ring.memory);
    free(scratch.pointers.memory);
    return result;
}
