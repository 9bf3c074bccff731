// The JPEG decoder: any bytes, at any scale, of which any part is looked at.
//
// The first bytes of an input say how the file is read, the others are the file.
#include "../src/selftaught/augment/image/native/views.h"

#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" int32_t selftaught_read_jpeg(const uint8_t *data, int64_t size, int32_t height,
                                        int32_t width, int32_t scale, const Params *params,
                                        int64_t views, int32_t processor, uint8_t *out);

// The size that the first frame header claims, as Python reads it before it asks the decoder.
static bool claimed(const uint8_t *data, size_t size, int32_t &height, int32_t &width) {
    for (size_t at = 0; at + 9 < size; at++)
        if (data[at] == 0xff && data[at + 1] >= 0xc0 && data[at + 1] <= 0xc2) {
            height = data[at + 5] << 8 | data[at + 6];
            width = data[at + 7] << 8 | data[at + 8];
            return height && width && int64_t(height) * width <= 1 << 16;
        }
    return false;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t options = 8;
    if (size < options) return 0;
    const uint8_t *how = data;
    // A copy of its own length, so that a byte read beyond its end is found.
    std::vector<uint8_t> file(data + options, data + size);
    int32_t height = 0, width = 0;
    if (!claimed(file.data(), file.size(), height, width)) height = width = 16;
    if (how[0] & 64) height += how[0] & 3; // the caller may be wrong about it
    const int32_t scale = 1 << (how[0] & 3);
    std::vector<Params> views(1 + (how[1] & 1));
    for (size_t k = 0; k < views.size(); k++) {
        Params &p = views[k];
        memset(&p, 0, sizeof p);
        const uint8_t *part = how + 2 + 2 * k;
        p.top = int64_t(part[0]) * height / 256, p.left = int64_t(part[1]) * width / 256;
        p.height = 1 + int64_t(how[6]) * (height - p.top - 1) / 255;
        p.width = 1 + int64_t(how[7]) * (width - p.left - 1) / 255;
    }
    const size_t rows = (height + scale - 1) / scale, columns = (width + scale - 1) / scale;
    std::vector<uint8_t> out(rows * columns * 4);
    for (int32_t processor = 0; processor < 3; processor++)
        selftaught_read_jpeg(file.data(), int64_t(file.size()), height, width, scale, views.data(),
                             int64_t(views.size()), processor, out.data());
    return 0;
}
