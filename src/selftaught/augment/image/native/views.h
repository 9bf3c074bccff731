// What Python and the native part agree on, and what the two halves of the native part agree on.
#pragma once
#include <cstddef>
#include <cstdint>

// Pixels of one image. `height` and `width` are those that parameters refer to; with `scale` 2, 4
// or 8 only ceil(height / scale) x ceil(width / scale) pixels exist, each the mean of a square.
struct Image {
    const uint8_t *pixels;
    int64_t row;  // bytes from one row to the next, may be negative
    int32_t step; // bytes from one pixel to the next, at least the number of channels
    int32_t height, width, scale;
};

const int LARGEST_CHANNELS = 1 << 10;

// A declared view: `selftaught.augment.View`, with the logarithms of its ratios.
struct View {
    double scale[2], log_ratio[2], ratio[2];
    double flip, jitter[4], jitter_p, gray, blur, sigma[2], solarize, vertical, erase;
    int32_t rows, columns, bicubic;
    int32_t radius; // at which the blur is cut, below 0: nowhere
    int32_t turns;
    uint8_t fill[LARGEST_CHANNELS]; // of the erased rectangle
};

// A drawn view: `selftaught.augment.Params`. `order` ends with -1 where it is shorter than 4. The
// crop is resized to whole[0] x whole[1], of which the view shows its size from `shown` on: down,
// across. `flip` mirrors it left to right, `vertical` top to bottom; then rows and columns change
// places if `transpose`. `erased`: top, left, height, width in the view.
struct Params {
    double factors[4], sigma;
    int32_t top, left, height, width, flip, order[4], gray, solarize;
    int32_t whole[2], shown[2];
    int32_t vertical, transpose, erased[4];
    int32_t unused;
};

// Renders one view into `out`, [channels, rows, columns]. `memory` has `workspace(...)` bytes and is
// aligned to 64. Arguments are valid: nothing is checked.
using Render = void (*)(const Image &, int channels, const View &, const Params &, uint8_t *memory,
                        uint8_t *out);

// The same code, compiled for several kinds of processor.
namespace baseline {
void render(const Image &, int, const View &, const Params &, uint8_t *, uint8_t *);
}
#ifdef WITH_AVX2
namespace avx2 {
void render(const Image &, int, const View &, const Params &, uint8_t *, uint8_t *);
}
#endif
#ifdef WITH_AVX512
namespace avx512 {
void render(const Image &, int, const View &, const Params &, uint8_t *, uint8_t *);
}
#endif

// Most source pixels that an output pixel can be made of.
inline int64_t most_taps(int64_t length, int64_t whole, bool bicubic) {
    const double ratio = double(length) / double(whole);
    const int64_t taps = int64_t((bicubic ? 4 : 2) * (ratio > 1 ? ratio : 1)) + 2;
    return taps < length ? taps : length;
}

inline size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Bytes of the tables for one axis: first source pixels and weights.
inline size_t table_bytes(int64_t length, int64_t whole, int64_t size, bool bicubic) {
    return aligned(size * sizeof(int32_t)) +
           aligned(size * most_taps(length, whole, bicubic) * sizeof(float));
}

// Finished rows that are taken apart into planes in one go; short ones are not worth it alone.
inline int rows_together(int columns) { return columns < 256 ? 1024 / columns : 4; }

inline size_t workspace(const Image &image, const View &view, const Params &p) {
    const size_t rows = view.rows, columns = view.columns, height = p.height / image.scale + 2,
                 width = p.width / image.scale + 2;
    const size_t resize = table_bytes(p.height, p.whole[0], rows, view.bicubic) +
                          table_bytes(p.width, p.whole[1], columns, view.bicubic) +
                          aligned(16 * width * sizeof(float)) +
                          aligned(16 * columns * sizeof(float)) +
                          aligned(4 * columns * rows_together(view.columns)) +
                          aligned(4 * (height + 4) * columns);
    const size_t blur =
        aligned(rows * columns) + aligned(3 * columns) + aligned(columns * sizeof(float));
    return resize > blur ? resize : blur;
}
