// One view, from the pixels of an image to planes of bytes: crop and resize, color, blur,
// solarize. Compiled once for every kind of processor, as namespace VARIANT; plain loops over
// contiguous arrays, which compilers turn into vector instructions.
//
// Meaning: torchvision's on uint8 tensors, as in render.py. Between operations values are whole
// levels 0..255. No templates of the standard library here: an instance compiled for AVX2 could
// replace the baseline's at link time.
#include "views.h"

#include <cmath>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef _MSC_VER
#define __restrict__ __restrict
#endif

namespace VARIANT {
namespace {

inline int lesser(int a, int b) { return a < b ? a : b; }
inline int greater(int a, int b) { return a > b ? a : b; }

// a * b + c, in one rounding where the processor can: torch does the same.
inline float fused(float a, float b, float c) {
#ifdef __AVX2__
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

// Four channels of a pixel in four rows, as floats: what resizing across works on. The one place
// where compilers need to be told how.
const int ROWS = 4, BLOCK = 4 * ROWS;
#if defined(__AVX512F__)
typedef __m512 Block;
inline Block load(const float *p) { return _mm512_loadu_ps(p); }
inline void store(float *p, Block a) { _mm512_storeu_ps(p, a); }
inline Block product(float weight, Block a) { return _mm512_mul_ps(_mm512_set1_ps(weight), a); }
inline Block add_product(Block sum, float weight, Block a) {
    return _mm512_fmadd_ps(_mm512_set1_ps(weight), a, sum);
}
inline Block widen(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)); }
#elif defined(__AVX2__)
struct Block {
    __m256 a, b;
};
inline Block load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float *p, Block v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
inline Block product(float weight, Block v) {
    const __m256 w = _mm256_set1_ps(weight);
    return {_mm256_mul_ps(w, v.a), _mm256_mul_ps(w, v.b)};
}
inline Block add_product(Block sum, float weight, Block v) {
    const __m256 w = _mm256_set1_ps(weight);
    return {_mm256_fmadd_ps(w, v.a, sum.a), _mm256_fmadd_ps(w, v.b, sum.b)};
}
inline Block widen(__m128i bytes) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
}
#else
struct Block {
    float v[BLOCK];
};
inline Block load(const float *p) {
    Block a;
    memcpy(a.v, p, sizeof a.v);
    return a;
}
inline void store(float *p, const Block &a) { memcpy(p, a.v, sizeof a.v); }
inline Block product(float weight, Block a) {
    for (int c = 0; c < BLOCK; c++) a.v[c] *= weight;
    return a;
}
inline Block add_product(Block sum, float weight, const Block &a) {
    for (int c = 0; c < BLOCK; c++) sum.v[c] += weight * a.v[c];
    return sum;
}
#endif

// From four bytes of each row.
inline Block widen(const uint8_t *const *rows, int64_t at) {
#ifdef __AVX2__
    int32_t v[ROWS];
    for (int r = 0; r < ROWS; r++) memcpy(v + r, rows[r] + at, 4);
    return widen(_mm_setr_epi32(v[0], v[1], v[2], v[3]));
#else
    Block a;
    for (int c = 0; c < BLOCK; c++) a.v[c] = rows[c / 4][at + c % 4];
    return a;
#endif
}

struct Memory {
    uint8_t *next;
    template <class T> T *take(size_t count) {
        T *p = reinterpret_cast<T *>(next);
        next += aligned(count * sizeof(T));
        return p;
    }
};

// ------------------------------------------------------------------------------------ resizing

// How pixels along one axis are made of others. As in torch and Pillow, weights are whole numbers
// (so that sums are exact, on every processor), times `unit`.
struct Table {
    int32_t *first; // source pixel of the first tap, relative to that of the crop
    float *weight;  // [size, taps]
    int taps;
    float unit;
};

inline double triangle(double x) { return x < 1 ? 1 - x : 0; }

// Keys' cubic with a = -0.5.
inline double cubic(double x) {
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// A side of the crop, of the image that it becomes, and of what is shown of that.
struct Side {
    int start, length, whole, shown;
};

// Weights of an antialiased resize from `length` pixels, which begin at `start`, to `whole`; only
// `size` of these are computed, from `shown` on.
//
// Where the image was decoded at 1 / scale, each existing pixel gets the weights of all pixels it
// stands for: crops keep their exact place, and nothing is filtered twice.
Table make_table(Memory &memory, Side side, int size, int scale, bool bicubic, bool mirrored) {
    const int start = side.start, length = side.length;
    const int room = int(most_taps(length, side.whole, bicubic));
    Table table = {memory.take<int32_t>(size), memory.take<float>(size_t(size) * room), 0, 0};
    const double ratio = double(length) / side.whole, stretch = ratio > 1 ? ratio : 1;
    const double support = (bicubic ? 2 : 1) * stretch, inverse = 1 / stretch;
    const int origin = start / scale, end = (start + length - 1) / scale - origin + 1;
    memset(table.weight, 0, size_t(size) * room * sizeof(float));
    float most = 0;
    for (int i = 0; i < size; i++) {
        const double center = (side.shown + i + 0.5) * ratio;
        const int a = greater(0, int(center - support + 0.5));
        const int b = lesser(length, int(center + support + 0.5));
        const int place = mirrored ? size - 1 - i : i, first = (start + a) / scale - origin;
        float *weight = table.weight + size_t(place) * room;
        double total = 0;
        int taps = 0;
        for (int j = a; j < b; j++) {
            const double x = std::fabs((j - center + 0.5) * inverse);
            const double value = bicubic ? cubic(x) : triangle(x);
            const int k = (start + j) / scale - origin - first;
            total += value;
            weight[k] += float(value);
            if (value != 0) taps = k + 1;
        }
        const float norm = float(1 / total);
        for (int k = 0; k < taps; k++) {
            weight[k] *= norm;
            most = weight[k] > most ? weight[k] : most;
        }
        table.first[place] = first;
        table.taps = greater(table.taps, taps);
    }
    float steps = 1; // of 1: as many as 16 bits hold
    while (steps < 1 << 22 && int(most * 2 * steps + 0.5f) < 1 << 15) steps *= 2;
    table.unit = 1 / steps;
    // All pixels get equally many taps; where these would leave the crop they begin earlier.
    const int taps = table.taps = lesser(table.taps, end);
    for (int i = 0; i < size; i++) {
        float *from = table.weight + size_t(i) * room, *to = table.weight + size_t(i) * taps;
        const int late = greater(0, table.first[i] + taps - end);
        for (int k = 0; k < taps; k++) from[k] = std::floor(from[k] * steps + 0.5f);
        memmove(to + late, from, (taps - late) * sizeof(float));
        for (int k = 0; k < late; k++) to[k] = 0;
        table.first[i] -= late;
    }
    return table;
}

inline float level(float v) { return v < 0 ? 0 : v > 255 ? 255 : v; }

inline uint8_t rounded(float v) { return uint8_t(int(level(v) + 0.5f)); }

// The first `channels` of four rows of pixels as floats, [pixel, row, 4]. `step` bytes a pixel: what
// lies beyond its channels is read too, but nothing beyond the last pixel's.
void widen_rows(const uint8_t *const *rows, int step, int channels, int width, float *out) {
    const int64_t end = int64_t(width - 1) * step + channels;
    int x = 0;
    for (; int64_t(x) * step + 4 <= end; x++, out += BLOCK) store(out, widen(rows, int64_t(x) * step));
    for (; x < width; x++, out += BLOCK)
        for (int c = 0; c < BLOCK; c++)
            out[c] = c % 4 < channels ? rows[c / 4][int64_t(x) * step + c % 4] : 0;
}

// Rows of pixels to rows of the new width. TAPS 0: as many as the table says.
template <int TAPS> void across(const Table &table, const float *rows, float *out, int size) {
    const int taps = TAPS ? TAPS : table.taps;
    const float *weight = table.weight;
    for (int x = 0; x < size; x++, weight += taps) {
        const float *p = rows + BLOCK * int64_t(table.first[x]);
        Block sum = product(weight[0], load(p));
        for (int k = 1; k < taps; k++) sum = add_product(sum, weight[k], load(p + BLOCK * k));
        store(out + BLOCK * x, sum);
    }
}

void across(const Table &table, const float *rows, float *out, int size) {
    switch (table.taps) {
    case 1: return across<1>(table, rows, out, size);
    case 2: return across<2>(table, rows, out, size);
    case 3: return across<3>(table, rows, out, size);
    case 4: return across<4>(table, rows, out, size);
    case 5: return across<5>(table, rows, out, size);
    case 6: return across<6>(table, rows, out, size);
    default: return across<0>(table, rows, out, size);
    }
}

// The weighted sum of 1 to 4 rows of bytes, added to `sum` unless it is the `first`; rounded to
// bytes if it is the `last`.
template <int TAPS, bool FIRST, bool LAST>
void down(const uint8_t *p, int64_t row, const float *weight, float unit, float *__restrict__ sum,
          uint8_t *__restrict__ out, int size) {
    const uint8_t *__restrict__ a = p;
    const uint8_t *__restrict__ b = TAPS > 1 ? p + row : p;
    const uint8_t *__restrict__ c = TAPS > 2 ? p + 2 * row : p;
    const uint8_t *__restrict__ d = TAPS > 3 ? p + 3 * row : p;
    const float wa = weight[0], wb = TAPS > 1 ? weight[1] : 0, wc = TAPS > 2 ? weight[2] : 0,
                wd = TAPS > 3 ? weight[3] : 0;
    for (int i = 0; i < size; i++) {
        float v = fused(wa, a[i], FIRST ? 0 : sum[i]);
        if (TAPS > 1) v = fused(wb, b[i], v);
        if (TAPS > 2) v = fused(wc, c[i], v);
        if (TAPS > 3) v = fused(wd, d[i], v);
        if (LAST)
            out[i] = rounded(v * unit);
        else
            sum[i] = v;
    }
}

template <bool FIRST>
void down(const uint8_t *p, int64_t row, const float *weight, int taps, float unit, float *sum,
          uint8_t *out, int size) {
    switch (taps) {
    case 1: return down<1, FIRST, true>(p, row, weight, unit, sum, out, size);
    case 2: return down<2, FIRST, true>(p, row, weight, unit, sum, out, size);
    case 3: return down<3, FIRST, true>(p, row, weight, unit, sum, out, size);
    case 4: return down<4, FIRST, true>(p, row, weight, unit, sum, out, size);
    default:
        down<4, FIRST, false>(p, row, weight, unit, sum, out, size);
        return down<false>(p + 4 * row, row, weight + 4, taps - 4, unit, sum, out, size);
    }
}

// [pixel, row, 4] to rows, `length` bytes apart.
void part(const uint8_t *__restrict__ blocks, uint8_t *__restrict__ rows, size_t length, int size) {
    for (int r = 0; r < ROWS; r++)
        for (int x = 0; x < size; x++) memcpy(rows + r * length + 4 * x, blocks + BLOCK * x + 4 * r, 4);
}

// Every fourth byte.
void pick(const uint8_t *__restrict__ from, uint8_t *__restrict__ to, int size) {
    for (int x = 0; x < size; x++) to[x] = from[4 * x];
}

// The same of n rows, into as many columns: four at a time, which are neighbors there.
void pick_turned(const uint8_t *from, int row, uint8_t *__restrict__ to, int size, int n) {
    int r = 0;
    for (; r + 4 <= n; r += 4)
        for (int x = 0; x < size; x++) {
            const uint8_t *p = from + size_t(r) * row + 4 * x;
            const uint8_t four[4] = {p[0], p[row], p[2 * row], p[3 * row]};
            memcpy(to + size_t(x) * size + r, four, 4);
        }
    for (; r < n; r++)
        for (int x = 0; x < size; x++) to[size_t(x) * size + r] = from[size_t(r) * row + 4 * x];
}

// Across first, then down, with bytes between: the order of torch and Pillow, hence their rounding.
void crop(const Image &image, int channels, const View &view, const Params &p, Memory memory,
          uint8_t *out) {
    const int high = view.rows, size = view.columns, step = image.step, scale = image.scale;
    const bool bicubic = view.bicubic;
    const Table rows = make_table(memory, {p.top, p.height, p.whole[0], p.shown[0]}, high, scale,
                                  bicubic, p.vertical);
    const Table columns = make_table(memory, {p.left, p.width, p.whole[1], p.shown[1]}, size,
                                     scale, bicubic, p.flip);
    const int top = p.top / scale, height = (p.top + p.height - 1) / scale - top + 1;
    const int left = p.left / scale, width = (p.left + p.width - 1) / scale - left + 1;
    const uint8_t *corner = image.pixels + top * image.row + int64_t(left) * step;
    float *wide = memory.take<float>(size_t(BLOCK) * width);
    float *line = memory.take<float>(size_t(BLOCK) * size);
    const int together = rows_together(size);
    uint8_t *bytes = memory.take<uint8_t>(size_t(4) * size * together);
    uint8_t *narrow = memory.take<uint8_t>(size_t(4) * (height + ROWS) * size); // [row, pixel, 4]
    const int row = 4 * size;
    for (int c = 0; c < channels; c += 4) {
        for (int y = 0; y < height; y += ROWS) {
            const uint8_t *from[ROWS];
            for (int r = 0; r < ROWS; r++)
                from[r] = corner + lesser(y + r, height - 1) * image.row + c;
            widen_rows(from, step, channels - c, width, wide);
            across(columns, wide, line, size);
            for (int i = 0; i < BLOCK * size; i++) bytes[i] = rounded(line[i] * columns.unit);
            part(bytes, narrow + size_t(y) * row, row, size);
        }
        for (int y = 0; y < high; y += together) {
            const int n = lesser(together, high - y);
            for (int r = 0; r < n; r++)
                down<true>(narrow + size_t(rows.first[y + r]) * row, row,
                           rows.weight + size_t(y + r) * rows.taps, rows.taps, rows.unit, line,
                           bytes + size_t(r) * row, row);
            for (int k = 0; k < 4 && c + k < channels; k++) {
                uint8_t *plane = out + size_t(c + k) * high * size;
                if (p.transpose) // of a square
                    pick_turned(bytes + k, row, plane + y, size, n);
                else
                    pick(bytes + k, plane + size_t(y) * size, n * size);
            }
        }
    }
}

// -------------------------------------------------------------------------------------- color

const int TILE = 1024; // pixels that colors are computed for at a time: they stay in the L1 cache

inline float whole(float v) { return float(int(v)); }

inline float luminance(float r, float g, float b) {
    return whole(fused(0.114f, b, fused(0.587f, g, 0.2989f * r)));
}

struct Tile {
    alignas(64) float plane[3][TILE];
};

void brighten(float *__restrict__ x, int n, float factor) {
    for (int i = 0; i < n; i++) x[i] = whole(level(x[i] * factor));
}

void blend(float *__restrict__ x, int n, float factor, float other, float rest) {
    for (int i = 0; i < n; i++) x[i] = whole(level(fused(other, rest, x[i] * factor)));
}

void saturate(float *__restrict__ r, float *__restrict__ g, float *__restrict__ b, int n,
              float factor, float rest) {
    for (int i = 0; i < n; i++) {
        const float gray = luminance(r[i], g[i], b[i]);
        r[i] = whole(level(fused(gray, rest, r[i] * factor)));
        g[i] = whole(level(fused(gray, rest, g[i] * factor)));
        b[i] = whole(level(fused(gray, rest, b[i] * factor)));
    }
}

// A channel of HSV colors as a function of hue is a trapezium: full for two of six sectors, empty
// for two, linear between. `hue` in [0, 6), shifted so that the channel is full in [5, 6) and [0, 1).
inline float falling(float hue) {
    hue = hue >= 6 ? hue - 6 : hue;
    const float v = hue < 4 - hue ? hue : 4 - hue;
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

void turn(float *__restrict__ r, float *__restrict__ g, float *__restrict__ b, int n, float by) {
    const float shift = 6 * by + 12;      // sectors; above 0 for every hue
    const float unit = 255.999f / 255.0f; // torchvision's way back from 0..1 to whole levels
    for (int i = 0; i < n; i++) {
        const float R = r[i], G = g[i], B = b[i];
        const float rg = R > G ? R : G, gr = R > G ? G : R;
        const float most = rg > B ? rg : B, least = gr < B ? gr : B;
        const float spread = most - least, inverse = 1 / (spread > 0 ? spread : 1);
        const float at_r = G - B, at_g = B - R, at_b = R - G;
        const float difference = most == R ? at_r : most == G ? at_g : at_b;
        const float sector = most == R ? 0.f : most == G ? 2.f : 4.f;
        float hue = fused(difference, inverse, sector) + shift;
        hue -= 6 * whole(hue * (1.f / 6));
        r[i] = whole(unit * (most - spread * falling(hue + 5)));
        g[i] = whole(unit * (most - spread * falling(hue + 3)));
        b[i] = whole(unit * (most - spread * falling(hue + 1)));
    }
}

void load_tile(Tile &t, const uint8_t *planes, size_t area, int channels, size_t at, int n) {
    for (int c = 0; c < channels; c++) {
        const uint8_t *__restrict__ p = planes + c * area + at;
        float *__restrict__ f = t.plane[c];
        for (int i = 0; i < n; i++) f[i] = p[i];
    }
}

void store_tile(const Tile &t, uint8_t *planes, size_t area, int channels, size_t at, int n) {
    for (int c = 0; c < channels; c++) {
        uint8_t *__restrict__ p = planes + c * area + at;
        const float *__restrict__ f = t.plane[c];
        for (int i = 0; i < n; i++) p[i] = uint8_t(int(f[i]));
    }
}

int64_t sum_luminance(const Tile &t, int n) {
    const float *__restrict__ r = t.plane[0], *__restrict__ g = t.plane[1],
                              *__restrict__ b = t.plane[2];
    int32_t sum = 0; // whole levels: no rounding, in any order
    for (int i = 0; i < n; i++) sum += int32_t(fused(0.114f, b[i], fused(0.587f, g[i], 0.2989f * r[i])));
    return sum;
}

int64_t sum_bytes(const uint8_t *p, size_t count) {
    int64_t total = 0;
    for (size_t at = 0; at < count; at += TILE) {
        const int n = int(count - at < size_t(TILE) ? count - at : TILE);
        int32_t sum = 0;
        for (int i = 0; i < n; i++) sum += p[at + i];
        total += sum;
    }
    return total;
}

void apply(Tile &t, int n, const Params &p, int from, int to, float mean) {
    float *r = t.plane[0], *g = t.plane[1], *b = t.plane[2];
    for (int k = from; k < to; k++) {
        const float factor = float(p.factors[p.order[k]]);
        const float rest = float(1 - p.factors[p.order[k]]);
        switch (p.order[k]) {
        case 0:
            for (int c = 0; c < 3; c++) brighten(t.plane[c], n, factor);
            break;
        case 1:
            for (int c = 0; c < 3; c++) blend(t.plane[c], n, factor, mean, rest);
            break;
        case 2: saturate(r, g, b, n, factor, rest); break;
        default: turn(r, g, b, n, factor);
        }
    }
}

void make_gray(Tile &t, int n) {
    float *__restrict__ r = t.plane[0], *__restrict__ g = t.plane[1], *__restrict__ b = t.plane[2];
    for (int i = 0; i < n; i++) r[i] = g[i] = b[i] = luminance(r[i], g[i], b[i]);
}

// Jitter and gray of three channels. The contrast needs the mean of the whole view as it is at its
// turn: everything before it is a pass of its own.
void color(uint8_t *planes, size_t area, const Params &p) {
    int count = 0, contrast = -1;
    for (; count < 4 && p.order[count] >= 0; count++)
        if (p.order[count] == 1) contrast = count;
    if (!count && !p.gray) return;
    Tile t;
    float mean = 0;
    if (contrast >= 0) {
        int64_t sum = 0;
        for (size_t at = 0; at < area; at += TILE) {
            const int n = int(area - at < size_t(TILE) ? area - at : TILE);
            load_tile(t, planes, area, 3, at, n);
            apply(t, n, p, 0, contrast, 0);
            sum += sum_luminance(t, n);
            if (contrast > 0) store_tile(t, planes, area, 3, at, n);
        }
        mean = float(sum) / float(area);
    }
    for (size_t at = 0; at < area; at += TILE) {
        const int n = int(area - at < size_t(TILE) ? area - at : TILE);
        load_tile(t, planes, area, 3, at, n);
        apply(t, n, p, contrast >= 0 ? contrast : 0, count, mean);
        if (p.gray) make_gray(t, n);
        store_tile(t, planes, area, 3, at, n);
    }
}

// Jitter of images that are not of three channels: only brightness and contrast mean something.
void intensity(uint8_t *planes, size_t area, int channels, const Params &p) {
    const size_t total = area * channels;
    for (int k = 0; k < 4 && p.order[k] >= 0; k++) {
        if (p.order[k] > 1) continue;
        const float factor = float(p.factors[p.order[k]]);
        const float rest = float(1 - p.factors[p.order[k]]);
        const float mean = p.order[k] ? float(sum_bytes(planes, total)) / float(total) : 0;
        Tile t;
        for (size_t at = 0; at < total; at += TILE) {
            const int n = int(total - at < size_t(TILE) ? total - at : TILE);
            load_tile(t, planes, total, 1, at, n);
            if (p.order[k])
                blend(t.plane[0], n, factor, mean, rest);
            else
                brighten(t.plane[0], n, factor);
            store_tile(t, planes, total, 1, at, n);
        }
    }
}

// ---------------------------------------------------------------------------------------- blur

const int WIDEST = 512; // radius beyond which a Gaussian is cut; sigma 146

// The half of a Gaussian from its center on, over the whole of which it sums to 1.
void gaussian(double sigma, int radius, float *weight) {
    double total = 1;
    for (int j = 1; j <= radius; j++) total += 2 * std::exp(-0.5 * (j / sigma) * (j / sigma));
    for (int j = 0; j <= radius; j++)
        weight[j] = float(std::exp(-0.5 * (j / sigma) * (j / sigma)) / total);
}

// A weighted sum of lines: `lines` holds the middle one, then pairs that share a weight. Weights
// are 256ths, so that 16 bits hold the sum.
template <int PAIRS>
void sum_lines(const uint8_t *const *lines, const float *weight, uint8_t *__restrict__ out, int n) {
    const uint8_t *line[2 * PAIRS + 1]; // of this function alone, so that `out` is none of them
    uint16_t w[PAIRS + 1];
    w[0] = 256;
    for (int k = 0; k <= 2 * PAIRS; k++) line[k] = lines[k];
    for (int k = 1; k <= PAIRS; k++) {
        w[k] = uint16_t(weight[k] * 256 + 0.5f);
        w[0] = uint16_t(w[0] - 2 * w[k]);
    }
    for (int i = 0; i < n; i++) {
        uint16_t sum = uint16_t(128 + w[0] * line[0][i]);
        for (int k = 1; k <= PAIRS; k++)
            sum = uint16_t(sum + w[k] * uint16_t(line[2 * k - 1][i] + line[2 * k][i]));
        out[i] = uint8_t(sum >> 8);
    }
}

// Wide sums are in floats: many small weights need them.
void sum_lines(const uint8_t *const *lines, const float *weight, int pairs, float *sum,
               uint8_t *__restrict__ out, int n) {
    switch (pairs) {
    case 1: return sum_lines<1>(lines, weight, out, n);
    case 2: return sum_lines<2>(lines, weight, out, n);
    case 3: return sum_lines<3>(lines, weight, out, n);
    case 4: return sum_lines<4>(lines, weight, out, n);
    case 5: return sum_lines<5>(lines, weight, out, n);
    case 6: return sum_lines<6>(lines, weight, out, n);
    case 7: return sum_lines<7>(lines, weight, out, n);
    }
    for (int i = 0; i < n; i++) sum[i] = weight[0] * lines[0][i];
    for (int k = 1; k <= pairs; k++) {
        const uint8_t *__restrict__ a = lines[2 * k - 1], *__restrict__ b = lines[2 * k];
        const float w = weight[k];
        for (int i = 0; i < n; i++) sum[i] += w * float(a[i] + b[i]);
    }
    for (int i = 0; i < n; i++) out[i] = rounded(sum[i]);
}

// Pixels to each side that a blur looks at, of `size` along an axis: cut at 3.5 sigma, beyond which
// lie five in ten thousand.
int reach(int size, double sigma, int cut) {
    double found = std::ceil(3.5 * sigma);
    if (cut >= 0 && cut < found) found = cut;
    if (found > size - 1) found = size - 1;
    return found > WIDEST ? WIDEST : int(found);
}

// Separable, edges mirrored.
void blur(uint8_t *plane, int rows, int size, double sigma, int cut, Memory memory) {
    float weight[WIDEST + 1];
    uint8_t *columns = memory.take<uint8_t>(size_t(rows) * size);
    uint8_t *padded = memory.take<uint8_t>(size_t(3) * size);
    float *sum = memory.take<float>(size);
    const uint8_t *lines[2 * WIDEST + 1];
    const int down = reach(rows, sigma, cut), across = reach(size, sigma, cut);
    gaussian(sigma, down, weight);
    for (int y = 0; y < rows; y++) {
        lines[0] = plane + size_t(y) * size;
        for (int j = 1; j <= down; j++) {
            lines[2 * j - 1] = plane + size_t(y < j ? j - y : y - j) * size;
            lines[2 * j] = plane + size_t(y + j < rows ? y + j : 2 * rows - 2 - y - j) * size;
        }
        sum_lines(lines, weight, down, sum, columns + size_t(y) * size, size);
    }
    if (across != down) gaussian(sigma, across, weight);
    uint8_t *middle = padded + size;
    lines[0] = middle;
    for (int j = 1; j <= across; j++) {
        lines[2 * j - 1] = middle - j;
        lines[2 * j] = middle + j;
    }
    for (int y = 0; y < rows; y++) {
        const uint8_t *from = columns + size_t(y) * size;
        memcpy(middle, from, size);
        for (int j = 1; j <= across; j++) {
            middle[-j] = from[j];
            middle[size - 1 + j] = from[size - 1 - j];
        }
        sum_lines(lines, weight, across, sum, plane + size_t(y) * size, size);
    }
}

void erase(uint8_t *planes, int channels, const View &view, const int32_t *where) {
    for (int c = 0; c < channels; c++)
        for (int y = where[0]; y < where[0] + where[2]; y++)
            memset(planes + (size_t(c) * view.rows + y) * view.columns + where[1], view.fill[c],
                   where[3]);
}

} // namespace

void render(const Image &image, int channels, const View &view, const Params &p, uint8_t *memory,
            uint8_t *out) {
    const size_t area = size_t(view.rows) * view.columns;
    crop(image, channels, view, p, {memory}, out);
    if (channels == 3)
        color(out, area, p);
    else
        intensity(out, area, channels, p);
    const bool alike = channels == 3 && p.gray;
    const int different = alike ? 1 : channels;
    if (p.sigma > 0) {
        for (int c = 0; c < different; c++)
            blur(out + c * area, view.rows, view.columns, p.sigma, view.radius, {memory});
        for (int c = different; c < channels; c++) memcpy(out + c * area, out, area);
    }
    if (p.solarize)
        for (size_t i = 0; i < area * channels; i++)
            out[i] = out[i] < 128 ? out[i] : uint8_t(255 - out[i]);
    if (p.erased[2]) erase(out, channels, view, p.erased);
}

} // namespace VARIANT
