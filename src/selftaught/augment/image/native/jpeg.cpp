// The stream of a JPEG file (ITU-T T.81): its markers and its Huffman codes. Only what nearly all
// photos are: sequential, 8 bits, gray or YCbCr in one scan. Whatever is unexpected ends in a
// refusal; nothing is repaired.
//
// Three things make it fast. Stuffed bytes are taken out beforehand, so that 56 bits are fetched
// without a look at them; a code and the bits that follow it are taken in one step; and pixels are
// computed only where a view will look. Codes are read to the end all the same: only there shows
// damage inside, such as bytes that are lost, whose traces are pixels in wrong places.
#include "jpeg.h"

#include <cstring>

namespace {

const int LOOK = 10;       // bits that are looked up at once
const int END = 128;       // a skip beyond any block: end of block
const int PADDING = 512;   // bytes after a segment: a block of 64 codes may run that far over
const uint8_t NATURAL[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                             12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                             35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                             58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

// Where the coefficient goes that is the k-th after a skip; beyond the block, to a place for that.
struct Order {
    uint8_t at[64 + END];
    Order() {
        for (int k = 0; k < 64 + END; k++) at[k] = k < 64 ? NATURAL[k] : 64;
    }
};
const Order ORDER;

// What a code says: bits of the code and of code and value, bits of the value, and how many
// coefficients further that one is.
struct Code {
    uint8_t both, code, size, skip;
};

// As many whole codes with their values as LOOK bits hold: how many bits these are, how many
// coefficients further the last one is, and the one before it.
struct Jump {
    uint8_t bits, skip, before;
};

// ISO's canonical codes, as a table over the first LOOK bits; longer ones are searched.
class Huffman {
  public:
    bool ready = false;

    // False where the lengths do not make a code.
    bool build(const uint8_t *lengths, const uint8_t *symbols, int count, bool of_ac) {
        ac = of_ac;
        memset(fast, 0, sizeof fast);
        memcpy(symbol, symbols, count);
        int code = 0, k = 0;
        for (int bits = 1; bits <= 16; bits++, code <<= 1) {
            offset[bits] = k - code;
            for (int i = 0; i < lengths[bits - 1]; i++, code++, k++) {
                if (code >> bits) return false;
                const Code meaning = explained(symbol[k], bits);
                if (meaning.size > (ac ? 10 : 11)) return false;
                if (bits > LOOK) continue;
                const int same = 1 << (LOOK - bits);
                for (int j = 0; j < same; j++) fast[code * same + j] = meaning;
            }
            limit[bits] = uint32_t(code) << (16 - bits);
        }
        for (int i = 0; ac && i < 1 << LOOK; i++) jumps[i] = furthest(i);
        return ready = true;
    }

    // Of the bits on top; `both` is 0 where there is no such code.
    Code first(uint64_t bits) const {
        const Code found = fast[bits >> (64 - LOOK)];
        return found.both ? found : longer(uint32_t(bits >> 48));
    }

    Jump jump(uint64_t bits) const { return jumps[bits >> (64 - LOOK)]; }

  private:
    Code fast[1 << LOOK];
    Jump jumps[1 << LOOK];
    uint8_t symbol[256];
    uint32_t limit[17]; // the first 16-bit number whose code is longer
    int32_t offset[17];
    bool ac;

    Code explained(int symbol, int bits) const {
        const int size = symbol & 15, run = symbol >> 4;
        if (!ac) return {uint8_t(bits + symbol), uint8_t(bits), uint8_t(symbol), 1};
        const bool end = size == 0 && run != 15;
        return {uint8_t(bits + size), uint8_t(bits), uint8_t(size), uint8_t(end ? END : run + 1)};
    }

    Jump furthest(int bits) const {
        Jump jump = {0, 0, 0};
        while (jump.skip < 64) {
            const Code next = fast[bits << jump.bits & ((1 << LOOK) - 1)];
            if (!next.both || jump.bits + next.both > LOOK) break;
            jump.bits += next.both;
            jump.before = jump.skip;
            jump.skip += next.skip;
        }
        return jump;
    }

    Code longer(uint32_t bits) const {
        for (int length = LOOK + 1; length <= 16; length++)
            if (bits < limit[length])
                return explained(symbol[(bits >> (16 - length)) + offset[length]], length);
        return {0, 1, 0, END};
    }
};

// Bits of a segment without stuffed bytes, the next one on top. Reads up to eight bytes further.
class Bits {
  public:
    Bits(const uint8_t *from, const uint8_t *end) : next(from), end(end) {}

    uint64_t top = 0;

    void fill() { // at least 56
        uint64_t more = 0;
        for (int i = 0; i < 8; i++) more = more << 8 | next[i]; // compilers make it one load
        top |= more >> count;
        next += (63 - count) >> 3;
        count |= 56;
    }

    void use(int bits) {
        top <<= bits;
        count -= bits;
    }

    bool far_over() const { return next > end + 8; }

    // Whether all was taken, but for the bits that fill up the last byte.
    bool spent() const {
        const int64_t left = (end - next) * 8 + count;
        return 0 <= left && left < 8;
    }

  private:
    int count = 0;
    const uint8_t *next, *end;
};

// The number after a code: its first bit tells its sign. Without branches, which would be guessed
// wrong for every second coefficient.
inline int value(uint64_t bits, Code c) {
    const uint64_t rest = bits << c.code;
    const int magnitude = int(rest >> 1 >> (63 - c.size));
    const int negative = int(~(int64_t(rest) >> 63));
    return magnitude + (negative & (1 - (1 << c.size)));
}

struct Component {
    int across, down; // blocks of it in a unit
    int size;         // pixels along a block's sides: 8, or fewer where the image is reduced
    const int16_t *quant;
    const Huffman *dc, *ac;
    Plane plane;
    int16_t *coefficients; // of a row of units
    uint8_t *flat;
    int blocks;   // in a row of them, with some to spare: they are transformed in groups
    int last = 0; // DC before
};

// One block into `out`, which is zero; a 65th place takes what is none of it. False where the
// codes make no block.
inline bool read_block(Bits &bits, Component &c, int16_t *out, uint8_t &flat) {
    bits.fill();
    Code code = c.dc->first(bits.top);
    if (!code.both || bits.far_over()) return false;
    c.last += value(bits.top, code);
    bits.use(code.both);
    const int16_t dc = int16_t(c.last);
    int k = 1;
    const Huffman &ac = *c.ac;
    do {
        bits.fill(); // enough for two codes of at most 26 bits each
        code = ac.first(bits.top);
        k += code.skip;
        out[ORDER.at[k - 1]] = int16_t(value(bits.top, code));
        bits.use(code.both);
        if (k >= 64) break;
        code = ac.first(bits.top);
        k += code.skip;
        out[ORDER.at[k - 1]] = int16_t(value(bits.top, code));
        bits.use(code.both);
    } while (k < 64);
    out[0] = dc;
    flat = k == 1 + END;
    return code.both && (k == 64 || k >= END);
}

// One block of which only the first coefficient, `dc`, is wanted.
inline bool skip_block(Bits &bits, Component &c, int16_t &dc) {
    bits.fill();
    Code code = c.dc->first(bits.top);
    if (!code.both || bits.far_over()) return false;
    c.last += value(bits.top, code);
    bits.use(code.both);
    dc = int16_t(c.last);
    int k = 1;
    do {
        bits.fill();
        const Jump jump = c.ac->jump(bits.top);
        if (k + jump.before < 64) {
            k += jump.skip;
            bits.use(jump.bits);
            if (k >= 64) break;
        }
        code = c.ac->first(bits.top);
        k += code.skip;
        bits.use(code.both);
    } while (k < 64);
    return code.both && (k == 64 || k >= END);
}

// Columns [first, end) that boxes need of rows [top, bottom); none where first >= end.
struct Columns {
    int first, end;
};

Columns needed(const Box *boxes, int count, int top, int bottom, int width) {
    Columns all = {width, 0};
    for (int i = 0; i < count; i++) {
        const Box &b = boxes[i];
        if (b.top >= bottom || b.top + b.height <= top) continue;
        if (b.left < all.first) all.first = b.left;
        if (b.left + b.width > all.end) all.end = b.left + b.width;
    }
    return all;
}

inline int up(int64_t a, int64_t b) { return int((a + b - 1) / b); }

inline int two(const uint8_t *p) { return p[0] << 8 | p[1]; }

// The markers before the scan.
class Header {
  public:
    int count = 0, interval = 0; // components; units between restarts
    int ids[3], across[3], down[3], table[3], dc_table[3], ac_table[3];
    int16_t quant[4][64];
    Huffman dc[2], ac[2];
    const uint8_t *scan = nullptr;

    // False for anything but an ordinary file of this size.
    bool read(const uint8_t *data, size_t size, int height, int width) {
        const uint8_t *p = data + 2, *const end = data + size;
        if (size < 4 || two(data) != 0xffd8) return false;
        while (end - p >= 4 && p[0] == 0xff) {
            const int kind = p[1];
            if (kind == 0xff) { // padding
                p++;
                continue;
            }
            const int length = two(p + 2) - 2;
            p += 4;
            if (length < 0 || end - p < length) return false;
            if (kind == 0xda) {
                scan = p + length;
                return count && has_tables(p, length);
            }
            if (!marker(kind, p, length, height, width)) return false;
            p += length;
        }
        return false;
    }

  private:
    bool have_quant[4] = {false, false, false, false};

    bool marker(int kind, const uint8_t *p, int length, int height, int width) {
        if (kind == 0xc0 || kind == 0xc1) return frame(p, length, height, width);
        if (kind == 0xc4) return huffman(p, length);
        if (kind == 0xdb) return quantization(p, length);
        if (kind == 0xdd) {
            interval = length == 2 ? two(p) : -1;
            return length == 2;
        }
        if (kind == 0xee && length >= 12 && !memcmp(p, "Adobe", 5)) return p[11] == 1;
        return (kind >= 0xe0 && kind <= 0xef) || kind == 0xfe;
    }

    bool frame(const uint8_t *p, int length, int height, int width) {
        if (count || length < 6 || p[0] != 8 || two(p + 1) != height || two(p + 3) != width)
            return false;
        count = p[5];
        if ((count != 1 && count != 3) || length != 6 + 3 * count) return false;
        for (int c = 0; c < count; c++) {
            const uint8_t *q = p + 6 + 3 * c;
            ids[c] = q[0], across[c] = q[1] >> 4, down[c] = q[1] & 15, table[c] = q[2];
            if (table[c] > 3) return false;
        }
        if (count == 1) {
            across[0] = down[0] = 1; // alone, it has nothing to be larger than
            return true;
        }
        const bool colors = ids[0] != 'R' && across[1] == 1 && down[1] == 1 && across[2] == 1 &&
                             down[2] == 1;
        const bool usual = (across[0] == 1 && down[0] == 1) || (across[0] == 2 && down[0] == 1) ||
                           (across[0] == 2 && down[0] == 2);
        return colors && usual;
    }

    bool huffman(const uint8_t *p, int length) {
        while (length >= 17) {
            int symbols = 0;
            for (int i = 1; i <= 16; i++) symbols += p[i];
            if (symbols > 256 || length < 17 + symbols || p[0] & ~0x11) return false;
            Huffman &into = (p[0] >> 4 ? ac : dc)[p[0] & 1];
            if (!into.build(p + 1, p + 17, symbols, p[0] >> 4)) return false;
            p += 17 + symbols;
            length -= 17 + symbols;
        }
        return length == 0;
    }

    bool quantization(const uint8_t *p, int length) {
        for (; length >= 65; p += 65, length -= 65) {
            if (p[0] > 3) return false;
            for (int k = 0; k < 64; k++) quant[p[0]][NATURAL[k]] = p[1 + k];
            have_quant[p[0]] = true;
        }
        return length == 0;
    }

    bool has_tables(const uint8_t *p, int length) {
        if (length != 4 + 2 * count || p[0] != count) return false;
        for (int c = 0; c < count; c++) {
            if (p[1 + 2 * c] != ids[c]) return false;
            dc_table[c] = p[2 + 2 * c] >> 4, ac_table[c] = p[2 + 2 * c] & 15;
            if (dc_table[c] > 1 || ac_table[c] > 1 || !have_quant[table[c]]) return false;
            if (!dc[dc_table[c]].ready || !ac[ac_table[c]].ready) return false;
        }
        p += 1 + 2 * count;
        return p[0] == 0 && p[1] == 63 && p[2] == 0;
    }
};

// Segments of the scan between restart markers, without stuffed bytes, PADDING after each: their
// ends. `out` has room for the scan and that many paddings. False where the file does not end as
// it should, or restarts are not those expected.
bool unstuffed(const uint8_t *p, const uint8_t *end, size_t segments, uint8_t *out,
               uint8_t **begins, uint8_t **ends) {
    for (size_t i = 0; i < segments; i++) {
        begins[i] = out;
        while (true) {
            const void *found = memchr(p, 0xff, end - p);
            const uint8_t *mark = static_cast<const uint8_t *>(found);
            if (!mark || end - mark < 2) return false;
            memcpy(out, p, mark - p);
            out += mark - p;
            p = mark + 2;
            if (mark[1]) {
                if (mark[1] != (i + 1 < segments ? 0xd0 + i % 8 : 0xd9)) return false;
                break;
            }
            *out++ = 0xff;
        }
        ends[i] = out;
        memset(out, 0, PADDING);
        out += PADDING;
    }
    return true;
}

inline size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

} // namespace

bool read_jpeg(const uint8_t *data, size_t size, int height, int width, int scale,
               const Box *boxes, int box_count, Blocks blocks, Colors colors, Room room,
               uint8_t *out) {
    Header header;
    if (!header.read(data, size, height, width)) return false;
    const int across = header.across[0], down = header.down[0];
    const int columns = up(width, 8 * across), rows = up(height, 8 * down);
    // Pixels that a unit becomes. Colors sampled at half in both directions are not reduced as far
    // as the light: at 1 / 2 and below there is nothing left to upsample.
    const int unit_width = 8 * across / scale, unit_height = 8 * down / scale;
    const bool finer = scale > 1 && across == 2 && down == 2;
    Growth growth = {finer ? 1 : across, finer ? 1 : down, scale < 8};
    const int64_t units = int64_t(columns) * rows;
    const int64_t interval = header.interval ? header.interval : units;
    const size_t segments = size_t((units + interval - 1) / interval);
    const uint8_t *const end = data + size;
    if (segments > size) return false; // each has a byte at least

    // Memory: the scan, its segments, coefficients of a row of units, two such rows of pixels.
    size_t need = aligned(end - header.scan + (segments + 1) * PADDING);
    const size_t at_segments = need;
    need += aligned(2 * segments * sizeof(uint8_t *));
    Component parts[3];
    size_t at_coefficients[3], at_flat[3], at_plane[3];
    for (int c = 0; c < header.count; c++) {
        Component &part = parts[c];
        part.across = header.across[c], part.down = header.down[c];
        part.quant = header.quant[header.table[c]];
        part.dc = &header.dc[header.dc_table[c]], part.ac = &header.ac[header.ac_table[c]];
        part.size = (finer && c ? 16 : 8) / scale;
        part.blocks = columns * part.across + SPARE;
        part.plane.stride = int64_t(part.blocks) * part.size;
        part.plane.width = up(int64_t(width) * part.across * part.size, 8 * across);
        part.plane.height = up(int64_t(height) * part.down * part.size, 8 * down);
        at_coefficients[c] = need;
        need += aligned((size_t(part.blocks) * part.down * 64 + 1) * sizeof(int16_t));
        at_flat[c] = need;
        need += aligned(size_t(part.blocks) * part.down);
        // Rows of this row of units and the one before.
        part.plane.kept = 2 * part.size * part.down;
        at_plane[c] = need;
        need += aligned(size_t(part.plane.stride) * part.plane.kept);
    }
    const size_t at_scratch = need;
    const int out_height = up(height, scale), out_width = up(width, scale);
    uint8_t *const own = room(need + jpeg_scratch(out_width));
    uint8_t **begins = reinterpret_cast<uint8_t **>(own + at_segments), **ends = begins + segments;
    Plane planes[3];
    for (int c = 0; c < header.count; c++) {
        parts[c].coefficients = reinterpret_cast<int16_t *>(own + at_coefficients[c]);
        parts[c].flat = own + at_flat[c];
        memset(parts[c].flat, 1, size_t(parts[c].blocks) * parts[c].down);
        parts[c].plane.pixels = own + at_plane[c];
        planes[c] = parts[c].plane;
        growth.smooth &= planes[c].width > 2; // libjpeg's rule
    }
    if (!unstuffed(header.scan, end, segments, own, begins, ends)) return false;

    // A row of pixels smoothed in both directions is made of those of small planes above and below.
    const int context = growth.down == 2 ? 2 : 0;
    Bits bits(begins[0], ends[0]);
    int64_t left = interval;
    size_t segment = 0;
    int done = 0;
    for (int row = 0; row < rows; row++) {
        const int top = row * unit_height, bottom = top + unit_height;
        Columns see = needed(boxes, box_count, top - context, bottom + context, out_width);
        int first = columns, beyond = 0; // units of which pixels are needed
        if (see.first < see.end) {
            first = (see.first - 2 < 0 ? 0 : see.first - 2) / unit_width;
            beyond = up(see.end + 2, unit_width);
            beyond = beyond < columns ? beyond : columns;
            for (int c = 0; c < header.count; c++)
                memset(parts[c].coefficients, 0,
                       (size_t(parts[c].blocks) * parts[c].down * 64 + 1) * sizeof(int16_t));
        }
        for (int column = 0; column < columns; column++) {
            const bool seen = first <= column && column < beyond;
            if (!left--) {
                if (!bits.spent()) return false;
                segment++;
                bits = Bits(begins[segment], ends[segment]);
                left = interval - 1;
                for (int c = 0; c < header.count; c++) parts[c].last = 0;
            }
            for (int c = 0; c < header.count; c++) {
                Component &part = parts[c];
                for (int y = 0; y < part.down; y++)
                    for (int x = 0; x < part.across; x++) {
                        const size_t at = size_t(y) * part.blocks + column * part.across + x;
                        int16_t *const place = part.coefficients + at * 64;
                        if (!seen || part.size == 1) {
                            if (!skip_block(bits, part, place[0])) return false;
                            continue;
                        }
                        const int16_t next = place[64]; // a neighbor's: no block's end
                        const bool good = read_block(bits, part, place, part.flat[at]);
                        place[64] = next;
                        if (!good) return false;
                    }
            }
        }
        for (int c = 0; c < header.count && first < beyond; c++) {
            const Component &part = parts[c];
            for (int y = 0; y < part.down; y++) {
                const size_t from = size_t(first) * part.across;
                const size_t at = size_t(y) * part.blocks + from;
                blocks(part.coefficients + at * 64, part.flat + at, part.quant,
                       (beyond - first) * part.across, part.size,
                       part.plane.row((row * part.down + y) * part.size) + from * part.size,
                       part.plane.stride);
            }
        }
        const int ready = row + 1 == rows ? out_height : bottom - (growth.down == 2);
        for (; done < ready; done++) {
            see = needed(boxes, box_count, done, done + 1, out_width);
            if (see.first < see.end)
                colors(planes, header.count, growth, done, see.first, see.end,
                        own + at_scratch, out + size_t(done) * out_width * 4);
        }
    }
    return bits.spent();
}
