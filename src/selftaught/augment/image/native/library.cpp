// The doors of the native part: draw numbers, map them to parameters, render views. Plain C calls
// with plain arrays; every argument is checked before memory is touched, and errors are numbers
// that native.py puts into words.
#include "jpeg.h"
#include "views.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#ifdef _MSC_VER
#include <intrin.h>
#endif

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

enum Status : int32_t { DONE, BAD_SIZE, BAD_IMAGE, BAD_PARAMS, NO_MEMORY };

const int LARGEST_VIEW = 1 << 14;
const int LARGEST_IMAGE = 1 << 30;

// ------------------------------------------------------------------------------ random numbers

// The generator that `numpy.random.default_rng((seed, epoch, index))` is: O'Neill's PCG64 (XSL-RR
// 128/64), seeded by her seed sequence over the numbers' 32-bit words.
struct Wide {
    uint64_t high, low;
};

Wide operator+(Wide a, Wide b) {
    const uint64_t low = a.low + b.low;
    return {a.high + b.high + (low < a.low), low};
}

Wide operator*(Wide a, Wide b) {
    const uint64_t mask = 0xffffffff;
    const uint64_t a0 = a.low & mask, a1 = a.low >> 32, b0 = b.low & mask, b1 = b.low >> 32;
    const uint64_t ll = a0 * b0, lh = a0 * b1, hl = a1 * b0;
    const uint64_t middle = (ll >> 32) + (lh & mask) + (hl & mask);
    const uint64_t carry = a1 * b1 + (lh >> 32) + (hl >> 32) + (middle >> 32);
    return {carry + a.high * b.low + a.low * b.high, middle << 32 | (ll & mask)};
}

class Generator {
  public:
    Generator(uint64_t seed, uint64_t epoch, uint64_t index) {
        uint32_t words[6];
        int count = 0;
        for (uint64_t number : {seed, epoch, index}) {
            words[count++] = uint32_t(number);
            if (number >> 32) words[count++] = uint32_t(number >> 32);
        }
        uint32_t pool[4], hash = 0x43b0d7e5;
        for (int i = 0; i < 4; i++) pool[i] = scramble(i < count ? words[i] : 0, hash);
        for (int from = 0; from < 4; from++)
            for (int to = 0; to < 4; to++)
                if (from != to) pool[to] = mix(pool[to], scramble(pool[from], hash));
        for (int from = 4; from < count; from++)
            for (int to = 0; to < 4; to++) pool[to] = mix(pool[to], scramble(words[from], hash));
        uint64_t out[4] = {0, 0, 0, 0};
        hash = 0x8b51f9dd;
        for (int i = 0; i < 8; i++) {
            uint32_t v = pool[i % 4] ^ hash;
            hash *= 0x58f38ded;
            v *= hash;
            v ^= v >> 16;
            out[i / 2] |= uint64_t(v) << (32 * (i % 2));
        }
        increment = {out[2] << 1 | out[3] >> 63, out[3] << 1 | 1};
        state = increment + Wide{out[0], out[1]};
        step();
    }

    // In [0, 1), a multiple of 2^-53.
    double uniform() {
        step();
        const uint64_t x = state.high ^ state.low;
        const unsigned turn = unsigned(state.high >> 58);
        return double((x >> turn | x << (-turn & 63)) >> 11) * (1.0 / 9007199254740992.0);
    }

  private:
    Wide state, increment;

    void step() { state = state * Wide{0x2360ed051fc65da4, 0x4385df649fccf645} + increment; }

    static uint32_t scramble(uint32_t value, uint32_t &hash) {
        value ^= hash;
        hash *= 0x931e8875;
        value *= hash;
        return value ^ value >> 16;
    }

    static uint32_t mix(uint32_t a, uint32_t b) {
        const uint32_t v = 0xca01f9dd * a - 0x4973f715 * b;
        return v ^ v >> 16;
    }
};

// ---------------------------------------------------------------------------------- parameters

const int DRAWS = 33; // a view; their slots are explained in view.py

double between(double low, double high, double u) { return low + (high - low) * u; }

// The low half of a draw, as another one.
double low(double u) {
    const double fine = u * (1 << 26);
    return fine - std::floor(fine);
}

void draw_crop(const View &v, const double *u, int height, int width, Params &p) {
    const double area = double(height) * width, shape = double(v.columns) / v.rows;
    for (int k = 0; k < 10; k++) {
        const double target = area * between(v.scale[0], v.scale[1], u[k]);
        const double ratio = std::exp(between(v.log_ratio[0], v.log_ratio[1], u[10 + k])) * shape;
        const double w = std::nearbyint(std::sqrt(target * ratio));
        const double h = std::nearbyint(std::sqrt(target / ratio));
        if (w < 1 || w > width || h < 1 || h > height) continue;
        p.width = int(w), p.height = int(h);
        p.top = int(u[20] * (height - p.height + 1));
        p.left = int(u[21] * (width - p.width + 1));
        return;
    }
    const double h = std::nearbyint(width / (v.ratio[0] * shape));
    const double w = std::nearbyint(height * (v.ratio[1] * shape));
    p.height = h < height ? (h > 1 ? int(h) : 1) : height;
    p.width = w < width ? (w > 1 ? int(w) : 1) : width;
    p.top = (height - p.height) / 2, p.left = (width - p.width) / 2;
}

void draw_erased(const View &v, const double *u, Params &p) {
    const double log_low = std::log(0.3), log_high = std::log(3.3);
    for (int k = 0; k < 10; k++) {
        const double target = double(v.rows) * v.columns * between(0.02, 0.33, low(u[k]));
        const double ratio = std::exp(between(log_low, log_high, low(u[10 + k])));
        const double h = std::nearbyint(std::sqrt(target * ratio));
        const double w = std::nearbyint(std::sqrt(target / ratio));
        if (h < 1 || h >= v.rows || w < 1 || w >= v.columns) continue;
        p.erased[0] = int(low(u[20]) * (v.rows - h + 1)), p.erased[2] = int(h);
        p.erased[1] = int(low(u[21]) * (v.columns - w + 1)), p.erased[3] = int(w);
        return;
    }
}

// The k-th order of four operations, in the order of dictionaries.
void permutation(int k, int *out) {
    int left[4] = {0, 1, 2, 3};
    const int block[4] = {6, 2, 1, 1};
    for (int i = 0; i < 4; i++) {
        const int at = k / block[i];
        k %= block[i];
        out[i] = left[at];
        for (int j = at; j < 3; j++) left[j] = left[j + 1];
    }
}

void draw(const View &v, const double *u, int height, int width, Params &p) {
    memset(&p, 0, sizeof p);
    draw_crop(v, u, height, width, p);
    p.whole[0] = v.rows, p.whole[1] = v.columns;
    // a quarter turn is a flip and a transposition, two are two flips
    const int quarters = v.turns ? int(low(u[23]) * 4) : 0;
    p.flip = (u[22] < v.flip) != (quarters == 1 || quarters == 2);
    p.vertical = (low(u[22]) < v.vertical) != (quarters == 2 || quarters == 3);
    p.transpose = quarters & 1;
    for (int k = 0; k < 4; k++) p.order[k] = -1, p.factors[k] = k < 3;
    if (u[23] < v.jitter_p) {
        int order[4], count = 0;
        permutation(int(u[24] * 24), order);
        for (int k : order)
            if (v.jitter[k] > 0) p.order[count++] = k;
        for (int k = 0; k < 3; k++) {
            const double low = 1 - v.jitter[k];
            p.factors[k] = between(low > 0 ? low : 0, 1 + v.jitter[k], u[25 + k]);
        }
        p.factors[3] = between(-v.jitter[3], v.jitter[3], u[28]);
    }
    p.gray = u[29] < v.gray;
    p.sigma = u[30] < v.blur ? between(v.sigma[0], v.sigma[1], u[31]) : 0;
    p.solarize = u[32] < v.solarize;
    if (low(u[32]) < v.erase) draw_erased(v, u, p);
}

// ------------------------------------------------------------------------------------- checking

bool in(int64_t low, int64_t x, int64_t high) { return low <= x && x <= high; }

Status check(const Image &image, int channels) {
    const bool good = image.pixels && in(1, image.height, LARGEST_IMAGE) &&
                      in(1, image.width, LARGEST_IMAGE) && in(channels, image.step, 1 << 12) &&
                      (image.scale == 1 || image.scale == 2 || image.scale == 4 || image.scale == 8);
    return good ? DONE : BAD_IMAGE;
}

Status check(const Image &image, const View &view, const Params &p) {
    const int32_t size[2] = {view.rows, view.columns};
    if (!in(1, size[0], LARGEST_VIEW) || !in(1, size[1], LARGEST_VIEW)) return BAD_SIZE;
    bool good = in(1, p.height, image.height) && in(1, p.width, image.width) &&
                in(0, p.top, image.height - p.height) && in(0, p.left, image.width - p.width) &&
                p.sigma >= 0 && p.sigma < 1e6 && (!p.transpose || size[0] == size[1]);
    for (int k = 0; k < 2; k++)
        good = good && in(0, p.erased[2 + k], size[k]) &&
               in(0, p.erased[k], size[k] - p.erased[2 + k]);
    for (int k = 0; k < 2; k++)
        good = good && in(size[k], p.whole[k], LARGEST_IMAGE) &&
               in(0, p.shown[k], p.whole[k] - size[k]);
    for (int k = 0; k < 4; k++) {
        good = good && in(-1, p.order[k], 3);
        good = good && std::fabs(p.factors[k]) <= (k < 3 ? 1e6 : 1) && (k > 2 || p.factors[k] >= 0);
    }
    return good ? DONE : BAD_PARAMS;
}

// ------------------------------------------------------------------------------------ rendering

// What this processor can do: 0 baseline, 1 AVX2 with FMA, 2 AVX-512 as servers have it.
int processor() {
#if defined(__GNUC__) && defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
               ? 2
               : 1;
#elif defined(_M_X64)
    int leaf1[4], leaf7[4];
    __cpuid(leaf1, 1);
    if (!(leaf1[2] >> 27 & 1) || !(leaf1[2] >> 12 & 1)) return 0; // the system's support, and FMA
    const unsigned long long saved = _xgetbv(0);
    __cpuidex(leaf7, 7, 0);
    if ((saved & 6) != 6 || !(leaf7[1] >> 5 & 1)) return 0;
    const int wanted = 1 << 16 | 1 << 17 | 1 << 30 | int(1u << 31);
    return (saved & 0xe6) == 0xe6 && (leaf7[1] & wanted) == wanted ? 2 : 1;
#else
    return 0;
#endif
}

// What is compiled for several kinds of processor.
struct Compiled {
    Render render;
    Blocks blocks;
    Colors colors;
};

Compiled choose(int32_t most) {
    static const int best = processor();
    const int use = most < best ? most : best;
#ifdef WITH_AVX512
    if (use >= 2) return {avx512::render, avx512::blocks, avx512::colors};
#endif
#ifdef WITH_AVX2
    if (use >= 1) return {avx2::render, avx2::blocks, avx2::colors};
#endif
    (void)use;
    return {baseline::render, baseline::blocks, baseline::colors};
}

// Scratch memory of a thread. It is kept, because fresh pages cost as much as a view, up to KEPT.
class Scratch {
  public:
    uint8_t *at_least(size_t need) {
        need += 64;
        if (size < need) {
            release();
            bytes.reset(new uint8_t[need]);
            size = need;
        }
        return reinterpret_cast<uint8_t *>(aligned(reinterpret_cast<size_t>(bytes.get())));
    }
    void tidy() {
        if (size > KEPT) release();
    }

  private:
    static const size_t KEPT = 32 << 20;
    std::unique_ptr<uint8_t[]> bytes;
    size_t size = 0;

    void release() {
        bytes.reset();
        size = 0;
    }
};

thread_local Scratch scratch;

} // namespace

// Uniform numbers in [0, 1), [count, draws]: row i is what the generator of (seed, epochs[i],
// indices[i]) draws first.
EXPORT void selftaught_uniforms(uint64_t seed, const int64_t *epochs, const int64_t *indices,
                                int64_t count, int64_t draws, double *out) {
    for (int64_t i = 0; i < count; i++) {
        Generator generator(seed, uint64_t(epochs[i]), uint64_t(indices[i]));
        for (int64_t k = 0; k < draws; k++) *out++ = generator.uniform();
    }
}

// Parameters [images, views] from uniform numbers [images, views, DRAWS] and the images' sizes.
EXPORT void selftaught_draw(const View *views, int64_t view_count, const double *uniforms,
                            const int32_t *heights, const int32_t *widths, int64_t images,
                            Params *out) {
    for (int64_t i = 0; i < images; i++)
        for (int64_t v = 0; v < view_count; v++, uniforms += DRAWS)
            draw(views[v], uniforms, heights[i], widths[i], *out++);
}

// View v of image i goes to outs[v] + i * channels * rows * columns. Returns a Status; `where` becomes
// the image that it is about. `processor` limits what is used of it: 0 baseline, 1 AVX2, 2 all.
EXPORT int32_t selftaught_render(const Image *images, int64_t image_count, int32_t channels,
                                 const View *views, int64_t view_count, const Params *params,
                                 uint8_t *const *outs, int32_t threads, int32_t processor,
                                 int64_t *where) {
    *where = 0;
    if (!in(1, channels, LARGEST_CHANNELS)) return BAD_IMAGE;
    for (int64_t i = 0; i < image_count; i++) {
        *where = i;
        Status status = check(images[i], channels);
        for (int64_t v = 0; v < view_count && !status; v++)
            status = check(images[i], views[v], params[i * view_count + v]);
        if (status) return status;
    }
    const Render render = choose(processor).render;
    std::atomic<int64_t> next(0);
    std::atomic<bool> out_of_memory(false);
    auto work = [&] {
        Scratch &mine = scratch; // looked up once: not in the inner loop
        try {
            for (int64_t i; (i = next++) < image_count;)
                for (int64_t v = 0; v < view_count; v++) {
                    const View &view = views[v];
                    const Params &p = params[i * view_count + v];
                    const size_t bytes = size_t(channels) * view.rows * view.columns;
                    render(images[i], channels, view, p,
                           mine.at_least(workspace(images[i], view, p)), outs[v] + i * bytes);
                }
        } catch (const std::bad_alloc &) {
            out_of_memory = true;
        }
        mine.tidy();
    };
    std::vector<std::thread> helpers;
    try {
        for (int k = 1; k < threads && k < image_count; k++) helpers.emplace_back(work);
    } catch (const std::exception &) {
        // The system gives no more threads: those that run do the work.
    }
    work();
    for (std::thread &helper : helpers) helper.join();
    return out_of_memory ? NO_MEMORY : DONE;
}

// Pixels of a JPEG that `views` views look at, reduced by `scale` (1, 2, 4 or 8), into `out`, [height /
// scale, width / scale, 4], rounded up; the others are left as they are. Returns 1 if that was done,
// 0 if the file is for another decoder.
EXPORT int32_t selftaught_read_jpeg(const uint8_t *data, int64_t size, int32_t height, int32_t width,
                               int32_t scale, const Params *params, int64_t views,
                               int32_t processor, uint8_t *out) {
    if (!in(1, height, 65535) || !in(1, width, 65535) || size < 0) return 0;
    if (scale != 1 && scale != 2 && scale != 4 && scale != 8) return 0;
    try {
        std::vector<Box> boxes;
        for (const Params *p = params; p < params + views; p++) {
            if (!in(0, p->top, height - 1) || !in(1, p->height, height - p->top)) return 0;
            if (!in(0, p->left, width - 1) || !in(1, p->width, width - p->left)) return 0;
            const int top = p->top / scale, bottom = (p->top + p->height - 1) / scale + 1;
            const int left = p->left / scale, right = (p->left + p->width - 1) / scale + 1;
            boxes.push_back({top, left, bottom - top, right - left});
        }
        const Compiled use = choose(processor);
        const bool done = read_jpeg(
            data, size_t(size), height, width, scale, boxes.data(), int(boxes.size()),
            use.blocks, use.colors, [](size_t bytes) { return scratch.at_least(bytes); }, out);
        scratch.tidy();
        return done;
    } catch (const std::bad_alloc &) {
        return 0;
    }
}

// Sizes of the structures, for native.py to check that both sides mean the same.
EXPORT void selftaught_sizes(int64_t *out) {
    out[0] = sizeof(Image), out[1] = sizeof(View), out[2] = sizeof(Params);
}
