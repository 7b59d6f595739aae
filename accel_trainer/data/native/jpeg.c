/* Boxes of JPEGs: only what is cut out of an image is decoded, by the libjpeg-turbo that torchvision (or Pillow) has
   loaded anyway, with the same bits as if it had decoded all of it.

   The library's functions are handed in, and its version and the size of its structure are asked of itself, so nothing
   is linked, and no header of it is needed. Of its structure only the beginning is used, which has been the same in
   versions 6b to 8, whose binary interfaces libjpeg-turbo has. */

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

/* Bytes that are enough for the library's structure. */
#define STRUCTURE 2048
/* Rows that the library is asked for at once. */
#define ROWS 16
/* Pixels beside a box that its own depend on, by the upsampling of colors, and the least that are decoded of a row. */
#define BESIDE 2
#define LEAST 32
/* Bytes that the library may have read ahead of the pixels that it has given. */
#define AHEAD 16
#define WARNING (-1)

typedef struct Decoder Decoder;

typedef struct {
    void (*error_exit)(Decoder *);
    void (*emit_message)(Decoder *, int level);
    void (*output_message)(Decoder *);
    void (*format_message)(Decoder *, char *);
    void (*reset)(Decoder *);
    int code;
    union {
        int numbers[8];
        char text[80];
    } about;
    int trace_level;
    long num_warnings;
    const char *const *messages;
    int last_message;
    const char *const *further_messages;
    int first_further, last_further;
} Errors;

typedef struct {
    const uint8_t *next;
    size_t left;
    void (*begin)(Decoder *);
    int (*fill)(Decoder *);
    void (*skip)(Decoder *, long);
    int (*resync)(Decoder *, int);
    void (*end)(Decoder *);
} Source;

/* jpeg_decompress_struct up to where versions begin to differ. */
struct Decoder {
    Errors *errors;
    void *memory, *progress, *client;
    int is_decoder, state;
    Source *source;
    unsigned image_width, image_height;
    int num_components, stored_colors, output_colors;
    unsigned scale_numerator, scale_denominator;
    double gamma;
    int is_buffered, is_raw, dct_method, fancy_upsampling, block_smoothing;
    int quantize, dither, two_passes, num_colors, one_pass, external, second_pass;
    unsigned output_width, output_height;
    int color_components, components, rows_at_once, actual_colors;
    void *colormap;
    unsigned output_row;
};

enum { GRAY = 1, RGB = 2, YCC = 3 };

typedef struct {
    Errors *(*std_error)(Errors *);
    void (*create)(Decoder *, int version, size_t size);
    int (*read_header)(Decoder *, int);
    int (*has_multiple_scans)(Decoder *);
    int (*start)(Decoder *);
    void (*crop)(Decoder *, unsigned *left, unsigned *width);
    unsigned (*skip)(Decoder *, unsigned rows);
    unsigned (*read)(Decoder *, uint8_t **rows, unsigned count);
    void (*destroy)(Decoder *);
    int (*resync)(Decoder *, int);
    int64_t version, size;
} JpegLibrary;

typedef struct {
    Errors errors;
    jmp_buf leave;
    const uint8_t *scan; /* where the header ends */
} Leaving;

typedef union {
    Decoder decoder;
    char room[STRUCTURE];
} Structure;

static void leave(Decoder *decoder) { longjmp(((Leaving *)decoder->errors)->leave, 1); }
static void on_message(Decoder *decoder, int level) {
    if (level <= WARNING)
        leave(decoder);
}
static void nothing(Decoder *decoder) { (void)decoder; }
static int no_more(Decoder *decoder) {
    leave(decoder);
    return 0;
}
static void skip_input(Decoder *decoder, long count) {
    Source *source = decoder->source;
    if (count <= 0)
        return;
    if ((size_t)count > source->left)
        leave(decoder);
    source->next += count;
    source->left -= (size_t)count;
}

/* What it answers to a caller of the wrong version, or of the wrong size: its own. 0 where it does not. */
static int64_t own(const JpegLibrary *library, int version) {
    Structure structure;
    Leaving leaving;
    memset(&structure, 0, sizeof structure);
    structure.decoder.errors = library->std_error(&leaving.errors);
    leaving.errors.error_exit = leave;
    if (setjmp(leaving.leave))
        return leaving.errors.about.numbers[0];
    library->create(&structure.decoder, version, 0);
    return 0;
}

/* Complete what is known of a library; whether it can be used. */
int kernel_know_jpeg_library(JpegLibrary *library) {
    library->version = own(library, 0);
    library->size = library->version < 62 || library->version >= 90 ? 0 : own(library, (int)library->version);
    return (size_t)library->size > sizeof(Decoder) && (size_t)library->size <= STRUCTURE;
}

/* -- files ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t address, size, height, width; /* of the encoded bytes; of the image, in pixels */
} Jpeg;

static int64_t two_bytes(const uint8_t *at) { return at[0] << 8 | at[1]; }

/* Find height and width in the header; 0 for what is no JPEG of one scan by Huffman's code and 8 bits. */
static void find_size(Jpeg *jpeg) {
    const uint8_t *at = (const uint8_t *)(intptr_t)jpeg->address, *end = at + jpeg->size;
    jpeg->height = jpeg->width = 0;
    if (jpeg->size < 4 || at[0] != 0xFF || at[1] != 0xD8)
        return;
    for (at += 2; end - at >= 10 && at[0] == 0xFF; at += 2 + two_bytes(at + 2)) {
        int marker = at[1];
        if (marker == 0xC0 || marker == 0xC1) {
            if (at[4] == 8 && (at[9] == 1 || at[9] == 3)) {
                jpeg->height = two_bytes(at + 5);
                jpeg->width = two_bytes(at + 7);
            }
            return;
        }
        if (!(marker == 0xC4 || marker >= 0xDB) || marker == 0xFF || two_bytes(at + 2) < 2)
            return;
    }
}

void kernel_jpeg_sizes(Jpeg *jpegs, int64_t count) {
    for (Jpeg *jpeg = jpegs; jpeg < jpegs + count; jpeg++)
        find_size(jpeg);
}

/* Whether nothing but rows and then the end of the image follows: of a file that is cut off, or where something else
   does, it is for those who decode all of it to say what it is. */
static int has_end(const uint8_t *at, const uint8_t *end) {
    while (at < end && (at = memchr(at, 0xFF, (size_t)(end - at))) != NULL && ++at < end) {
        if (*at == 0xD9)
            return 1;
        if (*at != 0xFF && *at != 0 && (*at < 0xD0 || *at > 0xD7))
            return 0;
    }
    return 0;
}

/* -- decoding ------------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t top, left, bottom, right;
} Box;

/* Pixels of some rows and columns of an image: of `held`, where those of `wanted` have been written. */
typedef struct {
    Box held;
    uint8_t *pixels;
    size_t size;
} Part;

static int make_room(Part *part) {
    size_t size = 3 * (size_t)(part->held.bottom - part->held.top) * (size_t)(part->held.right - part->held.left);
    if (size > part->size) {
        free(part->pixels);
        part->pixels = malloc(size);
        part->size = part->pixels == NULL ? 0 : size;
    }
    return part->pixels != NULL;
}

/* Decode the wanted box. part->held is widened to what is decoded of a row. 1; 0 for what is better decoded whole. */
static int decode(const JpegLibrary *library, const Jpeg *jpeg, Box wanted, Part *part) {
    Structure structure;
    Leaving leaving;
    Source source = {(const uint8_t *)(intptr_t)jpeg->address, (size_t)jpeg->size, nothing, no_more,
                     skip_input, library->resync, nothing};
    Decoder *decoder = &structure.decoder;
    memset(&structure, 0, sizeof structure);
    decoder->errors = library->std_error(&leaving.errors);
    leaving.errors.error_exit = leave;
    leaving.errors.emit_message = on_message;
    if (setjmp(leaving.leave)) {
        library->destroy(decoder);
        return 0;
    }
    library->create(decoder, (int)library->version, (size_t)library->size);
    decoder->source = &source;
    library->read_header(decoder, 1);
    leaving.scan = source.next;
    int is_as_found = decoder->image_height == jpeg->height && decoder->image_width == jpeg->width;
    int colors = decoder->stored_colors;
    if (!is_as_found || library->has_multiple_scans(decoder) || (colors != GRAY && colors != RGB && colors != YCC))
        leave(decoder);
    decoder->output_colors = RGB;
    library->start(decoder);
    int64_t left = wanted.left < BESIDE ? 0 : wanted.left - BESIDE, right = wanted.right + BESIDE;
    right = right < left + LEAST ? left + LEAST : right;
    right = right > jpeg->width ? jpeg->width : right;
    unsigned start = (unsigned)left, width = (unsigned)(right - left);
    library->crop(decoder, &start, &width); /* starts where a block does */
    Box *held = &part->held;
    held->left = held->left < start ? held->left : start;
    held->right = held->right > start + width ? held->right : start + width;
    if (!make_room(part))
        leave(decoder);
    if (wanted.top > 0)
        library->skip(decoder, (unsigned)wanted.top);
    size_t stride = 3 * (size_t)(held->right - held->left);
    uint8_t *row = part->pixels + (wanted.top - held->top) * (int64_t)stride + 3 * (start - held->left);
    for (int64_t left_over = wanted.bottom - wanted.top; left_over > 0;) {
        uint8_t *rows[ROWS];
        unsigned count = left_over < ROWS ? (unsigned)left_over : ROWS;
        for (unsigned i = 0; i < count; i++)
            rows[i] = row + i * stride;
        count = library->read(decoder, rows, count);
        if (count == 0)
            leave(decoder);
        left_over -= count;
        row += count * stride;
    }
    library->destroy(decoder);
    return has_end(source.next - leaving.scan < AHEAD ? leaving.scan : source.next - AHEAD, source.next + source.left);
}

/* -- rows of a batch -------------------------------------------------------------------------------------------------- */

static int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Of `from` pixels those that a window of what they are resized to depends on, and a few more. */
static void window_of(int64_t *start, int64_t *end, int64_t from, int64_t to, int64_t window, int64_t size) {
    double scale = (double)from / (double)to, support = (scale > 1 ? scale : 1) + 2;
    *start = larger(0, (int64_t)(scale * (double)window - support));
    *end = lesser(from, (int64_t)(scale * (double)(window + size) + support) + 1);
}

/* The boxes of all cuts of an image, and what of them is needed. */
static void boxes_of(const Cut *cuts, int64_t views, int64_t size, Box *held, Box *wanted) {
    for (const Cut *cut = cuts; cut < cuts + views; cut++) {
        Box own = {cut->top, cut->left, cut->top + cut->height, cut->left + cut->width}, need;
        window_of(&need.top, &need.bottom, cut->height, cut->resized_height, cut->window_top, size);
        window_of(&need.left, &need.right, cut->width, cut->resized_width, cut->window_left, size);
        need = (Box){own.top + need.top, own.left + need.left, own.top + need.bottom, own.left + need.right};
        int is_first = cut == cuts;
        *held = is_first ? own
                         : (Box){lesser(held->top, own.top), lesser(held->left, own.left),
                                 larger(held->bottom, own.bottom), larger(held->right, own.right)};
        *wanted = is_first ? need
                           : (Box){lesser(wanted->top, need.top), lesser(wanted->left, need.left),
                                   larger(wanted->bottom, need.bottom), larger(wanted->right, need.right)};
    }
}

/* As kernel_cut, of encoded images; is_done: of each, whether its rows were written. Those of others are to be made of
   the whole image, which may be of a kind that is not decoded here, or damaged. */
int kernel_cut_jpegs(const JpegLibrary *library, const Jpeg *jpegs, int64_t num_images, int64_t views, const Cut *cuts,
                     int64_t size, const Normalization *normalization, char *out, uint8_t *is_done,
                     int64_t may_use_vectors) {
    Part part = {{0, 0, 0, 0}, NULL, 0};
    int result = OK;
    Cut *own = malloc(sizeof *own * (size_t)views);
    size_t each = (size_t)(views * 3 * size * size) * (normalization == NULL ? 1 : sizeof(float));
    for (int64_t i = 0; i < num_images && own != NULL && result == OK; i++, cuts += views, out += each) {
        Box wanted = {0, 0, 0, 0};
        is_done[i] = 0;
        if (jpegs[i].height == 0 || jpegs[i].width == 0)
            continue;
        for (int64_t view = 0; view < views; view++)
            if (!kernel_is_inside(&cuts[view], jpegs[i].height, jpegs[i].width, size))
                result = OUTSIDE;
        if (result != OK)
            break;
        boxes_of(cuts, views, size, &part.held, &wanted);
        if (!decode(library, &jpegs[i], wanted, &part))
            continue;
        int64_t stride = 3 * (part.held.right - part.held.left);
        Image image = {(int64_t)(intptr_t)part.pixels, 1, stride, 3, part.held.bottom - part.held.top, stride / 3};
        for (int64_t view = 0; view < views; view++) {
            own[view] = cuts[view];
            own[view].top -= part.held.top;
            own[view].left -= part.held.left;
        }
        result = kernel_cut(&image, 1, views, own, size, normalization, out, may_use_vectors);
        is_done[i] = result == OK;
    }
    free(part.pixels);
    if (own == NULL)
        result = NO_MEMORY;
    free(own);
    return result;
}
