// The pixels of a JPEG: inverse cosine transform, smooth upsampling, YCbCr to RGB. Whole-number
// arithmetic with the roundings of libjpeg's default decoder, hence equal to it bit by bit. Compiled
// once for every kind of processor, as namespace VARIANT; no templates of the standard library here.
#include "jpeg.h"

#include <cstring>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#define WITH_SSE2
#endif

#ifdef _MSC_VER
#define __restrict__ __restrict
#endif

namespace VARIANT {
namespace {

inline int level(int v) { return v < 0 ? 0 : v > 255 ? 255 : v; }

// The inverse cosine transform is Loeffler, Ligtenberg and Moschytz' (ICASSP 1989): down the columns,
// then along the rows, with constants in 8192ths. Between the two passes 2 bits of fractions are
// kept; SCALE bits are taken off at the end of each.
//
// To 4 or 2 pixels it is the mean of each 2 or 4 of the 8, which leaves less to do: with 4, the
// fifth coefficient drops out, with 2 all even ones but the first.
constexpr int columns(int size) { return size == 8 ? 11 : size == 4 ? 12 : 13; }
constexpr int rows(int size) { return columns(size) + 7; }

#ifdef WITH_SSE2
// Rows of eight 16-bit numbers, one of each of SIDE blocks that lie side by side.
#ifdef __AVX2__
const int SIDE = 2;
typedef __m256i Row;
inline Row load(const int16_t *p) { // of this block and the next
    const __m128i a = _mm_loadu_si128((const __m128i *)p);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), _mm_loadu_si128((const __m128i *)(p + 64)), 1);
}
inline Row twice(const int16_t *p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p)); }
inline Row both(int a, int b) { return _mm256_set1_epi32(int(uint32_t(b) << 16 | (a & 0xffff))); }
inline Row add(Row a, Row b) { return _mm256_add_epi16(a, b); }
inline Row add_wide(Row a, Row b) { return _mm256_add_epi32(a, b); }
inline Row minus_wide(Row a, Row b) { return _mm256_sub_epi32(a, b); }
inline Row product(Row a, Row b) { return _mm256_mullo_epi16(a, b); }
inline Row pairs(Row a, Row b) { return _mm256_madd_epi16(a, b); }
inline Row low(Row a, Row b) { return _mm256_unpacklo_epi16(a, b); }
inline Row high(Row a, Row b) { return _mm256_unpackhi_epi16(a, b); }
inline Row wide(int v) { return _mm256_set1_epi32(v); }
template <int BITS> Row narrow(Row a, Row b) {
    return _mm256_packs_epi32(_mm256_srai_epi32(a, BITS), _mm256_srai_epi32(b, BITS));
}
template <int SIZE> void store(Row v, uint8_t *out) { // as levels, of each block the first SIZE
    const Row shifted = _mm256_adds_epi16(v, _mm256_set1_epi16(128));
    const __m256i bytes = _mm256_packus_epi16(shifted, shifted);
    const __m128i a = _mm256_castsi256_si128(bytes), b = _mm256_extracti128_si256(bytes, 1);
    if (SIZE == 8) {
        _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi64(a, b));
    } else if (SIZE == 4) {
        _mm_storel_epi64((__m128i *)out, _mm_unpacklo_epi32(a, b));
    } else {
        const int both = _mm_cvtsi128_si32(_mm_unpacklo_epi16(a, b));
        memcpy(out, &both, 4);
    }
}
#else
const int SIDE = 1;
typedef __m128i Row;
inline Row load(const int16_t *p) { return _mm_loadu_si128((const __m128i *)p); }
inline Row twice(const int16_t *p) { return load(p); }
inline Row both(int a, int b) { return _mm_set1_epi32(int(uint32_t(b) << 16 | (a & 0xffff))); }
inline Row add(Row a, Row b) { return _mm_add_epi16(a, b); }
inline Row add_wide(Row a, Row b) { return _mm_add_epi32(a, b); }
inline Row minus_wide(Row a, Row b) { return _mm_sub_epi32(a, b); }
inline Row product(Row a, Row b) { return _mm_mullo_epi16(a, b); }
inline Row pairs(Row a, Row b) { return _mm_madd_epi16(a, b); }
inline Row low(Row a, Row b) { return _mm_unpacklo_epi16(a, b); }
inline Row high(Row a, Row b) { return _mm_unpackhi_epi16(a, b); }
inline Row wide(int v) { return _mm_set1_epi32(v); }
template <int BITS> Row narrow(Row a, Row b) {
    return _mm_packs_epi32(_mm_srai_epi32(a, BITS), _mm_srai_epi32(b, BITS));
}
template <int SIZE> void store(Row v, uint8_t *out) { // as levels, the first SIZE
    const Row shifted = _mm_adds_epi16(v, _mm_set1_epi16(128));
    uint8_t bytes[16];
    _mm_storeu_si128((__m128i *)bytes, _mm_packus_epi16(shifted, shifted));
    memcpy(out, bytes, SIZE);
}
#endif

// 32-bit sums of all columns: those of the left four, and of the right.
struct Sums {
    Row left, right;
};
inline Sums operator+(Sums a, Sums b) { return {add_wide(a.left, b.left), add_wide(a.right, b.right)}; }
inline Sums operator-(Sums a, Sums b) {
    return {minus_wide(a.left, b.left), minus_wide(a.right, b.right)};
}
struct Pair { // of rows
    Row left, right;
    Pair(Row a, Row b) : left(low(a, b)), right(high(a, b)) {}
    Sums weighted(int first, int second) const {
        const Row w = both(first, second);
        return {pairs(left, w), pairs(right, w)};
    }
};

// Eight rows of coefficients to SIZE rows, 8, 4 or 2.
template <int SIZE, int SCALE> struct Transform;

template <int SCALE> struct Transform<2, SCALE> {
    static void run(const Row *x, Row *out) {
        const Sums round = {wide(1 << (SCALE - 1)), wide(1 << (SCALE - 1))};
        const Sums even = Pair(x[0], x[0]).weighted(16384, 16384) + round;
        const Sums odd =
            Pair(x[7], x[5]).weighted(-5906, 6967) + Pair(x[3], x[1]).weighted(-10426, 29692);
        const Sums first = even + odd, last = even - odd;
        out[0] = narrow<SCALE>(first.left, first.right);
        out[1] = narrow<SCALE>(last.left, last.right);
    }
};

template <int SCALE> struct Transform<4, SCALE> {
    static void run(const Row *x, Row *out) {
        const Sums round = {wide(1 << (SCALE - 1)), wide(1 << (SCALE - 1))};
        const Sums e0 = Pair(x[0], x[0]).weighted(8192, 8192) + round;
        const Sums e2 = Pair(x[2], x[6]).weighted(15137, -6270);
        const Pair high(x[7], x[5]), low(x[3], x[1]);
        const Sums even[2] = {e0 + e2, e0 - e2};
        const Sums odd[2] = {high.weighted(-4176, -4926) + low.weighted(7373, 20995),
                             high.weighted(-1730, 11893) + low.weighted(-17799, 8697)};
        for (int i = 0; i < 2; i++) {
            const Sums first = even[i] + odd[i], last = even[i] - odd[i];
            out[i] = narrow<SCALE>(first.left, first.right);
            out[3 - i] = narrow<SCALE>(last.left, last.right);
        }
    }
};

template <int SCALE> struct Transform<8, SCALE> {
    static void run(const Row *x, Row *out) {
        const Pair outer(x[0], x[4]), inner(x[2], x[6]);
        const Sums e2 = inner.weighted(4433, 4433 - 15137), e3 = inner.weighted(4433 + 6270, 4433);
        const Sums round = {wide(1 << (SCALE - 1)), wide(1 << (SCALE - 1))};
        const Sums e0 = outer.weighted(8192, 8192) + round, e1 = outer.weighted(8192, -8192) + round;
        const Pair sums(add(x[7], x[3]), add(x[5], x[1])), ends(x[7], x[1]), middle(x[5], x[3]);
        const Sums p73 = sums.weighted(9633 - 16069, 9633), p51 = sums.weighted(9633, 9633 - 3196);
        const Sums b0 = ends.weighted(2446 - 7373, -7373) + p73;
        const Sums b1 = middle.weighted(16819 - 20995, -20995) + p51;
        const Sums b2 = middle.weighted(-20995, 25172 - 20995) + p73;
        const Sums b3 = ends.weighted(-7373, 12299 - 7373) + p51;
        const Sums even[4] = {e0 + e3, e1 + e2, e1 - e2, e0 - e3}, odd[4] = {b3, b2, b1, b0};
        for (int i = 0; i < 4; i++) {
            const Sums first = even[i] + odd[i], last = even[i] - odd[i];
            out[i] = narrow<SCALE>(first.left, first.right);
            out[7 - i] = narrow<SCALE>(last.left, last.right);
        }
    }
};

inline void transpose(Row *x) {
    for (int turn = 0; turn < 3; turn++) {
        Row y[8];
        for (int i = 0; i < 4; i++) y[2 * i] = low(x[i], x[i + 4]), y[2 * i + 1] = high(x[i], x[i + 4]);
        for (int i = 0; i < 8; i++) x[i] = y[i];
    }
}

// Together, 8 / SIZE times SIDE blocks have eight rows after the first pass.
template <int SIZE>
void inverse(const int16_t *coefficients, const int16_t *quant, uint8_t *out, int64_t stride) {
    Row x[8], y[8];
    for (int k = 0; k < 8; k += SIZE, coefficients += 64 * SIDE) {
        for (int i = 0; i < 8; i++)
            y[i] = product(load(coefficients + 8 * i), twice(quant + 8 * i));
        Transform<SIZE, columns(SIZE)>::run(y, x + k);
    }
    transpose(x);
    Transform<SIZE, rows(SIZE)>::run(x, y);
    for (int i = SIZE; i < 8; i++) y[i] = wide(0);
    transpose(y);
    for (int i = 0; i < 8; i++)
        store<SIZE>(y[i], out + i % SIZE * stride + i / SIZE * SIDE * SIZE);
}
#else
const int SIDE = 1;

// Columns of eight, one after the other's first, to SIZE numbers each: 8, 4 or 2. What comes out is
// transposed, eight numbers from one column to the next.
template <int SIZE, int SCALE>
void transform(const int16_t *__restrict__ in, int count, int16_t *__restrict__ out) {
    const int round = 1 << (SCALE - 1);
    for (int i = 0; i < count; i++) {
        const int x0 = in[i], x1 = in[8 + i], x2 = in[16 + i], x3 = in[24 + i];
        const int x4 = in[32 + i], x5 = in[40 + i], x6 = in[48 + i], x7 = in[56 + i];
        if (SIZE == 2) {
            const int even = x0 * 32768 + round;
            const int odd = -5906 * x7 + 6967 * x5 - 10426 * x3 + 29692 * x1;
            out[8 * i] = int16_t((even + odd) >> SCALE);
            out[8 * i + 1] = int16_t((even - odd) >> SCALE);
            continue;
        }
        if (SIZE == 4) {
            const int e0 = x0 * 16384 + round, e2 = 15137 * x2 - 6270 * x6;
            const int o0 = -4176 * x7 - 4926 * x5 + 7373 * x3 + 20995 * x1;
            const int o1 = -1730 * x7 + 11893 * x5 - 17799 * x3 + 8697 * x1;
            out[8 * i] = int16_t((e0 + e2 + o0) >> SCALE);
            out[8 * i + 1] = int16_t((e0 - e2 + o1) >> SCALE);
            out[8 * i + 2] = int16_t((e0 - e2 - o1) >> SCALE);
            out[8 * i + 3] = int16_t((e0 + e2 - o0) >> SCALE);
            continue;
        }
        const int e0 = (x0 + x4) * 8192 + round, e1 = (x0 - x4) * 8192 + round;
        const int e2 = x2 * 4433 + x6 * (4433 - 15137), e3 = x2 * (4433 + 6270) + x6 * 4433;
        const int p73 = (x7 + x3) * (9633 - 16069) + (x5 + x1) * 9633;
        const int p51 = (x7 + x3) * 9633 + (x5 + x1) * (9633 - 3196);
        const int b0 = x7 * (2446 - 7373) - x1 * 7373 + p73;
        const int b1 = x5 * (16819 - 20995) - x3 * 20995 + p51;
        const int b2 = x3 * (25172 - 20995) - x5 * 20995 + p73;
        const int b3 = x1 * (12299 - 7373) - x7 * 7373 + p51;
        const int even[4] = {e0 + e3, e1 + e2, e1 - e2, e0 - e3}, odd[4] = {b3, b2, b1, b0};
        for (int j = 0; j < 4; j++) {
            out[8 * i + j] = int16_t((even[j] + odd[j]) >> SCALE);
            out[8 * i + 7 - j] = int16_t((even[j] - odd[j]) >> SCALE);
        }
    }
}

template <int SIZE>
void inverse(const int16_t *coefficients, const int16_t *quant, uint8_t *out, int64_t stride) {
    for (int k = 0; k < 8; k += SIZE, coefficients += 64, out += SIZE) {
        int16_t a[64], b[64];
        for (int i = 0; i < 64; i++) a[i] = int16_t(coefficients[i] * quant[i]);
        transform<SIZE, columns(SIZE)>(a, 8, b); // [column, SIZE]
        transform<SIZE, rows(SIZE)>(b, SIZE, a);
        for (int y = 0; y < SIZE; y++)
            for (int x = 0; x < SIZE; x++) out[y * stride + x] = uint8_t(level(a[8 * y + x] + 128));
    }
}
#endif

// A row of a plane that is smaller by two, smoothed to full width, from pixel 2 * first on. Each
// result is made of three parts of the pixel that it lies in and one of the neighbor that it lies
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
const uint8_t *upsampled(const Plane &plane, Growth growth, int y, int first, int end,
                         uint8_t *scratch) {
    if (growth.across == 1) return plane.row(y) + first;
    const int begin = first / 2, beyond = (end + 1) / 2, count = beyond - begin;
    int16_t *const sums = reinterpret_cast<int16_t *>(scratch); // [count + 2]
    uint16_t *const out = reinterpret_cast<uint16_t *>(scratch) + count + 2 + 32;
    const int a = begin > 0 ? begin - 1 : 0, b = beyond < plane.width ? beyond + 1 : plane.width;
    const int down = growth.down, row = y / down;
    const uint8_t *__restrict__ near = plane.row(row);
    if (!growth.smooth) {
        for (int i = 0; i < count; i++) out[i] = uint16_t(near[begin + i] * 0x101);
        return reinterpret_cast<const uint8_t *>(out);
    }
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

// Level of a block of which only the first coefficient is not zero.
inline uint8_t mean(int16_t coefficient, int16_t quant) {
    return uint8_t(level(((int16_t(coefficient * quant) + 4) >> 3) + 128));
}

template <int SIZE>
void grouped(const int16_t *coefficients, const uint8_t *flat, const int16_t *quant, int count,
             uint8_t *out, int64_t stride) {
    const int group = 8 / SIZE * SIDE; // at most SPARE + 1
    for (int k = 0; k < count; k += group) {
        bool all = true;
        for (int i = k; i < k + group; i++) all &= flat[i] != 0;
        if (!all) {
            inverse<SIZE>(coefficients + 64 * k, quant, out + SIZE * k, stride);
            continue;
        }
        for (int i = k; i < k + group; i++) {
            const uint8_t v = mean(coefficients[64 * i], quant[0]);
            for (int y = 0; y < SIZE; y++) memset(out + SIZE * i + y * stride, v, SIZE);
        }
    }
}

// v * share / 65536, rounded.
inline int16_t rounded_share(int16_t v, int16_t share) {
    const int16_t twice = int16_t((int16_t(2 * v) * share) >> 16);
    return int16_t((twice + 1) >> 1);
}

} // namespace

void blocks(const int16_t *coefficients, const uint8_t *flat, const int16_t *quant, int count,
            int size, uint8_t *out, int64_t stride) {
    if (size == 8) return grouped<8>(coefficients, flat, quant, count, out, stride);
    if (size == 4) return grouped<4>(coefficients, flat, quant, count, out, stride);
    if (size == 2) return grouped<2>(coefficients, flat, quant, count, out, stride);
    for (int i = 0; i < count; i++) out[i] = mean(coefficients[64 * i], quant[0]);
}

void colors(const Plane *planes, int count, Growth growth, int y, int first, int end,
             uint8_t *scratch, uint8_t *out) {
    first &= ~1;
    uint32_t *__restrict__ pixel = reinterpret_cast<uint32_t *>(out) + first;
    const uint8_t *__restrict__ gray = planes[0].row(y) + first;
    const int n = end - first;
    if (count == 1) {
        for (int i = 0; i < n; i++) pixel[i] = gray[i] * 0x010101u | 0xff000000u;
        return;
    }
    const uint8_t *__restrict__ blue = upsampled(planes[1], growth, y, first, end, scratch);
    const uint8_t *__restrict__ red = upsampled(planes[2], growth, y, first, end,
                                                scratch + jpeg_scratch(planes[0].width) / 2);
    for (int i = 0; i < n; i++) {
        // ITU-R BT.601, full range, in 65536ths; whole parts apart, so that 16 bits hold the others
        const int16_t b = int16_t(blue[i] - 128), r = int16_t(red[i] - 128), light = gray[i];
        const int R = level(int16_t(light + r + rounded_share(r, 26345)));
        const int G = level(int16_t(light - r + ((18734 * r - 22554 * b + 32768) >> 16)));
        const int B = level(int16_t(light + 2 * b + rounded_share(b, -14942)));
        pixel[i] = uint32_t(R | G << 8 | B << 16) | 0xff000000u;
    }
}

} // namespace VARIANT
