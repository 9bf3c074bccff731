// The renderer: images, views and parameters of any bytes, of which only sizes are kept small.
#include "../src/selftaught/augment/image/native/views.h"

#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" int32_t selftaught_render(const Image *images, int64_t image_count, int32_t channels,
                                     const View *views, int64_t view_count, const Params *params,
                                     uint8_t *const *outs, int32_t threads, int32_t processor,
                                     int64_t *where);

namespace {

class Reader {
  public:
    Reader(const uint8_t *data, size_t size) : data(data), left(size) {}

    template <class T> void fill(T &value) {
        memset(&value, 0, sizeof value);
        const size_t some = sizeof value < left ? sizeof value : left;
        memcpy(&value, data, some);
        data += some, left -= some;
    }
    int in(int low, int high) { // high is not reached
        uint16_t value;
        fill(value);
        return low + value % (high - low);
    }

  private:
    const uint8_t *data;
    size_t left;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Reader reader(data, size);
    const int channels = reader.in(1, 6), step = channels + reader.in(0, 3);
    Image image;
    image.height = reader.in(1, 80), image.width = reader.in(1, 80);
    image.scale = 1 << reader.in(0, 4), image.step = step;
    const int rows = (image.height + image.scale - 1) / image.scale;
    const int columns = (image.width + image.scale - 1) / image.scale;
    const int gap = reader.in(0, 5);
    image.row = int64_t(columns) * step + gap;
    std::vector<uint8_t> pixels(size_t(rows) * image.row - gap);
    for (size_t i = 0; i < pixels.size(); i++) pixels[i] = uint8_t(i * 131 + (size ? data[i % size] : 0));
    image.pixels = pixels.data();
    if (reader.in(0, 2)) image.pixels += (rows - 1) * image.row, image.row = -image.row;
    View view;
    reader.fill(view);
    view.size = reader.in(1, 40), view.bicubic = reader.in(0, 2), view.radius = reader.in(0, 9) - 1;
    Params params;
    reader.fill(params);
    if (reader.in(0, 8)) { // usually what the checks let through
        params.height = reader.in(1, image.height + 1), params.width = reader.in(1, image.width + 1);
        params.top = reader.in(0, image.height - params.height + 1);
        params.left = reader.in(0, image.width - params.width + 1);
        for (int k = 0; k < 2; k++) {
            params.whole[k] = view.size + reader.in(0, 9);
            params.shown[k] = reader.in(0, params.whole[k] - view.size + 1);
        }
        for (int k = 0; k < 4; k++) {
            params.order[k] = reader.in(0, 5) - 1;
            params.factors[k] = reader.in(0, 2001) / 1000. - (k == 3);
        }
        params.sigma = reader.in(0, 3) * reader.in(0, 400) / 100.;
    } else if (params.whole[0] > 1 << 12 || params.whole[1] > 1 << 12) {
        return 0; // allowed, but the tables for them only cost time
    }
    std::vector<uint8_t> out(size_t(channels) * view.size * view.size);
    uint8_t *outs[] = {out.data()};
    int64_t where;
    for (int32_t processor = 0; processor < 3; processor++)
        selftaught_render(&image, 1, channels, &view, 1, &params, outs, 1, processor, &where);
    return 0;
}
