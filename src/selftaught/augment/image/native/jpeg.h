// Reading ordinary JPEG files: what jpeg.cpp (the stream) and planes.cpp (the pixels) agree on.
#pragma once
#include <cstddef>
#include <cstdint>

// A component of an image: the size that it has, and the rows that are kept, in turns: a power of
// two of them, `stride` bytes apart.
struct Plane {
    uint8_t *pixels;
    int64_t stride;
    int32_t height, width, kept;

    uint8_t *row(int y) const { return pixels + (y & (kept - 1)) * stride; }
};

// Inverse cosine transform of `count` neighboring blocks, 64 coefficients each in natural order, to
// `size` x `size` pixels each (8; or 4, 2, 1: reduced), into rows at `out`. `flat` tells blocks of
// which only the first coefficient is not zero. Up to SPARE blocks more are transformed or not.
using Blocks = void (*)(const int16_t *coefficients, const uint8_t *flat, const int16_t *quant,
                        int count, int size, uint8_t *out, int64_t stride);

const int SPARE = 7;

// How the second and third plane become as large as the first: by `across` and `down`, each 1 or 2,
// and whether `smooth` or by repeating pixels.
struct Growth {
    int across, down;
    bool smooth;
};

// Pixels [first, end) of row `y` as red, green, blue, 255, from one plane (gray) or three (YCbCr).
// `scratch` has jpeg_scratch(width) bytes.
using Colors = void (*)(const Plane *planes, int count, Growth growth, int y, int first, int end,
                         uint8_t *scratch, uint8_t *out);

inline size_t jpeg_scratch(int64_t width) { return 2 * (size_t(width) + 64) * 4; }

// The same code, compiled for several kinds of processor.
#define SELFTAUGHT_JPEG(VARIANT)                                                                   \
    namespace VARIANT {                                                                            \
    void blocks(const int16_t *, const uint8_t *, const int16_t *, int, int, uint8_t *, int64_t);  \
    void colors(const Plane *, int, Growth, int, int, int, uint8_t *, uint8_t *);                 \
    }
SELFTAUGHT_JPEG(baseline)
#ifdef WITH_AVX2
SELFTAUGHT_JPEG(avx2)
#endif
#ifdef WITH_AVX512
SELFTAUGHT_JPEG(avx512)
#endif
#undef SELFTAUGHT_JPEG

// A rectangle of pixels that somebody will look at.
struct Box {
    int32_t top, left, height, width;
};

// Memory of at least that many bytes, aligned to 64, good until the next call.
using Room = uint8_t *(*)(size_t bytes);

// Decodes an upright `height` x `width` JPEG at 1 / `scale` (1, 2, 4 or 8), exactly as libjpeg-turbo's
// default decoder (accurate integer transform, smooth upsampling) does, into `out`, [height / scale,
// width / scale, 4], rounded up. Only what lies in `boxes`, in pixels of `out`; the others are left
// as they are. Returns whether it was done: not with anything rare or damaged, which decoders for
// everything shall judge.
bool read_jpeg(const uint8_t *data, size_t size, int height, int width, int scale,
               const Box *boxes, int box_count, Blocks blocks, Colors colors, Room room,
               uint8_t *out);
