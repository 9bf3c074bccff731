// The pixels of a JPEG: inverse cosine transform, smooth upsampling, YCbCr to RGB. Whole-number
// arithmetic with the roundings of libjpeg's default decoder, hence equal to it bit by bit. Compiled
// once for every kind of processor, as namespace VARIANT; no templates of the standard library here.
#include "jpeg.h"

#include <cstring>

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define WITH_SSE2
#endif

#ifdef _MSC_VER
#define __restrict__ __restrict
#endif

namespace VARIANT {
namespace {

// Loeffler, Ligtenberg and Moschytz' transform of eight numbers with eleven products (ICASSP 1989),
// its constants in 8192ths; down each of eight columns. `scale` bits are taken off at the end.
template <int SCALE> void transform(const int16_t *__restrict__ in, int16_t *__restrict__ out) {
    const int round = 1 << (SCALE - 1);
    for (int i = 0; i < 8; i++) {
        const int x0 = in[i], x1 = in[8 + i], x2 = in[16 + i], x3 = in[24 + i];
        const int x4 = in[32 + i], x5 = in[40 + i], x6 = in[48 + i], x7 = in[56 + i];
        // even: a rotation by 3 pi / 8 of x2 and x6
        const int turned = (x2 + x6) * 4433;
        const int e2 = turned - x6 * 15137, e3 = turned + x2 * 6270;
        const int e0 = (x0 + x4) * 8192 + round, e1 = (x0 - x4) * 8192 + round;
        const int a0 = e0 + e3, a3 = e0 - e3, a1 = e1 + e2, a2 = e1 - e2;
        // odd
        const int s73 = x7 + x3, s51 = x5 + x1, both = (s73 + s51) * 9633;
        const int p71 = (x7 + x1) * -7373, p53 = (x5 + x3) * -20995;
        const int p73 = both - s73 * 16069, p51 = both - s51 * 3196;
        const int b0 = x7 * 2446 + p71 + p73, b1 = x5 * 16819 + p53 + p51;
        const int b2 = x3 * 25172 + p53 + p73, b3 = x1 * 12299 + p71 + p51;
        out[i] = int16_t((a0 + b3) >> SCALE), out[56 + i] = int16_t((a0 - b3) >> SCALE);
        out[8 + i] = int16_t((a1 + b2) >> SCALE), out[48 + i] = int16_t((a1 - b2) >> SCALE);
        out[16 + i] = int16_t((a2 + b1) >> SCALE), out[40 + i] = int16_t((a2 - b1) >> SCALE);
        out[24 + i] = int16_t((a3 + b0) >> SCALE), out[32 + i] = int16_t((a3 - b0) >> SCALE);
    }
}

#ifdef WITH_SSE2
// Eight rows of eight.
struct Square {
    __m128i row[8];
};

inline Square load(const int16_t *p) {
    Square s;
    for (int i = 0; i < 8; i++) s.row[i] = _mm_loadu_si128((const __m128i *)(p + 8 * i));
    return s;
}

inline Square transposed(const Square &s) {
    Square a, b;
    for (int i = 0; i < 4; i++) {
        a.row[2 * i] = _mm_unpacklo_epi16(s.row[i], s.row[i + 4]);
        a.row[2 * i + 1] = _mm_unpackhi_epi16(s.row[i], s.row[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        b.row[2 * i] = _mm_unpacklo_epi16(a.row[i], a.row[i + 4]);
        b.row[2 * i + 1] = _mm_unpackhi_epi16(a.row[i], a.row[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        a.row[2 * i] = _mm_unpacklo_epi16(b.row[i], b.row[i + 4]);
        a.row[2 * i + 1] = _mm_unpackhi_epi16(b.row[i], b.row[i + 4]);
    }
    return a;
}

inline void transpose(int16_t *p) {
    const Square s = transposed(load(p));
    for (int i = 0; i < 8; i++) _mm_storeu_si128((__m128i *)(p + 8 * i), s.row[i]);
}

inline void store_levels(const int16_t *p, uint8_t *out, int64_t stride) {
    const Square s = transposed(load(p));
    const __m128i middle = _mm_set1_epi16(128);
    for (int i = 0; i < 8; i++) {
        const __m128i v = _mm_adds_epi16(s.row[i], middle);
        _mm_storel_epi64((__m128i *)(out + i * stride), _mm_packus_epi16(v, v));
    }
}
#else
inline void transpose(int16_t *p) {
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < i; j++) {
            const int16_t v = p[8 * i + j];
            p[8 * i + j] = p[8 * j + i];
            p[8 * j + i] = v;
        }
}

// What is left is transposed still.
inline void store_levels(const int16_t *p, uint8_t *out, int64_t stride) {
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) {
            const int v = p[8 * j + i] + 128;
            out[i * stride + j] = uint8_t(v < 0 ? 0 : v > 255 ? 255 : v);
        }
}
#endif

inline int level(int v) { return v < 0 ? 0 : v > 255 ? 255 : v; }

// A row of a plane that is smaller by two, smoothed to full width, from pixel 2 * first on. Each
// result is made of three parts of the pixel that it lies in and one of the neighbour that it lies
// towards; beyond the borders lies what lies on them. `from` has one more on both sides.
template <int SHIFT, int EVEN, int ODD>
void widen(const int16_t *__restrict__ from, int count, uint16_t *__restrict__ out) {
    for (int i = 0; i < count; i++) {
        const int here = 3 * from[i + 1];
        const int even = (here + from[i] + EVEN) >> SHIFT, odd = (here + from[i + 2] + ODD) >> SHIFT;
        out[i] = uint16_t(even | odd << 8); // little-endian, as all processors are that are left
    }
}

// Levels of row `y` from pixel `first` (even) on, from a plane that is smaller.
const uint8_t *upsampled(const Plane &plane, int across, int down, int y, int first, int end,
                         uint8_t *scratch) {
    if (across == 1) return plane.row(y) + first;
    const int begin = first / 2, beyond = (end + 1) / 2, count = beyond - begin;
    int16_t *const sums = reinterpret_cast<int16_t *>(scratch); // [count + 2]
    uint16_t *const out = reinterpret_cast<uint16_t *>(scratch) + count + 2 + 32;
    const int a = begin > 0 ? begin - 1 : 0, b = beyond < plane.width ? beyond + 1 : plane.width;
    const int row = y / down;
    const uint8_t *__restrict__ near = plane.row(row);
    int16_t *__restrict__ to = sums - begin + 1;
    if (down == 1) {
        for (int i = a; i < b; i++) to[i] = near[i];
    } else {
        int other = y % 2 ? row + 1 : row - 1;
        other = other < 0 ? 0 : other < plane.height ? other : plane.height - 1;
        const uint8_t *__restrict__ far = plane.row(other);
        for (int i = a; i < b; i++) to[i] = int16_t(3 * near[i] + far[i]);
    }
    if (begin == 0) to[-1] = to[0];
    if (beyond == plane.width) to[beyond] = to[beyond - 1];
    if (down == 1)
        widen<2, 1, 2>(sums, count, out);
    else
        widen<4, 8, 7>(sums, count, out);
    return reinterpret_cast<const uint8_t *>(out);
}

} // namespace

void blocks(const int16_t *coefficients, const uint8_t *flat, const int16_t *quant, int count,
            uint8_t *out, int64_t stride) {
    for (int k = 0; k < count; k++, coefficients += 64, out += 8) {
        if (flat[k]) {
            const int v = level(((int16_t(coefficients[0] * quant[0]) + 4) >> 3) + 128);
            for (int i = 0; i < 8; i++) memset(out + i * stride, v, 8);
            continue;
        }
        int16_t a[64], b[64];
        for (int i = 0; i < 64; i++) a[i] = int16_t(coefficients[i] * quant[i]);
        transform<11>(a, b);
        transpose(b);
        transform<18>(b, a);
        store_levels(a, out, stride);
    }
}

void colours(const Plane *planes, int count, int across, int down, int y, int first, int end,
             uint8_t *scratch, uint8_t *out) {
    first &= ~1;
    uint32_t *__restrict__ pixel = reinterpret_cast<uint32_t *>(out) + first;
    const uint8_t *__restrict__ grey = planes[0].row(y) + first;
    const int n = end - first;
    if (count == 1) {
        for (int i = 0; i < n; i++) pixel[i] = grey[i] * 0x010101u | 0xff000000u;
        return;
    }
    const uint8_t *__restrict__ blue = upsampled(planes[1], across, down, y, first, end, scratch);
    const uint8_t *__restrict__ red = upsampled(planes[2], across, down, y, first, end,
                                                scratch + jpeg_scratch(planes[0].width) / 2);
    for (int i = 0; i < n; i++) {
        // ITU-R BT.601, full range, in 65536ths
        const int b = blue[i] - 128, r = red[i] - 128, light = grey[i];
        const int R = level(light + ((91881 * r + 32768) >> 16));
        const int G = level(light + ((-22554 * b - 46802 * r + 32768) >> 16));
        const int B = level(light + ((116130 * b + 32768) >> 16));
        pixel[i] = uint32_t(R | G << 8 | B << 16) | 0xff000000u;
    }
}

} // namespace VARIANT
