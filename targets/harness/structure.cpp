#include "structure.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <map>
#include <utility>
#include <vector>

#include "bitmap.h"
#include "core/errors.h"
#include "decode.h"
#include "kinds.h"

namespace edgevit {
namespace {

using Coefficients = std::bitset<64>;

std::uint64_t big_endian(ByteView file, std::size_t at, std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i) {
        value = value << 8 | file.data[at + i];
    }
    return value;
}

std::uint64_t little_endian(ByteView file, std::size_t at, std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = count; i-- > 0;) {
        value = value << 8 | file.data[at + i];
    }
    return value;
}

bool has_name(ByteView file, std::size_t at, const char* name) {
    return std::equal(name, name + 4, file.data + at);
}

[[noreturn]] void fail(const std::string& what) { throw InputError("damaged " + what); }

class JpegWalk {
  public:
    explicit JpegWalk(ByteView file) : file_(file) {}

    void run() {
        for (std::size_t at = 2;;) {
            const std::uint8_t marker = next_marker(at);
            if (marker == 0xd9) {
                break;
            }
            if (marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {
                continue;  // these have no length
            }
            if (at + 2 > file_.size || big_endian(file_, at, 2) < 2 ||
                big_endian(file_, at, 2) > file_.size - at) {
                fail("JPEG: the file ends inside the image");
            }
            const auto length = static_cast<std::size_t>(big_endian(file_, at, 2));
            const ByteView body(file_.data + at + 2, length - 2);
            at += length;
            if (is_frame(marker) && body.size >= 6) {
                read_frame(marker, body);
            } else if (marker == 0xda) {
                read_scan(body);
                skip_entropy_coded(at);
            }
        }
        if (!scan_seen_) {
            fail("JPEG: the file ends before the image");
        }
        if (std::any_of(missing_.begin(), missing_.end(),
                        [](const auto& each) { return each.second.any(); })) {
            fail("JPEG: the last scans of a progressive image are missing");
        }
        check_image_size(width_, height_);
    }

  private:
    static bool is_frame(std::uint8_t marker) {
        return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 &&
               marker != 0xcc;
    }

    // Leaves `at` behind the marker.
    std::uint8_t next_marker(std::size_t& at) const {
        while (at < file_.size && file_.data[at] != 0xff) {
            ++at;
        }
        while (at + 1 < file_.size && file_.data[at + 1] == 0xff) {
            ++at;
        }
        if (at + 1 >= file_.size) {
            fail("JPEG: the file ends inside the image");
        }
        at += 2;
        return file_.data[at - 1];
    }

    void skip_entropy_coded(std::size_t& at) const {
        for (; at + 1 < file_.size; ++at) {
            const std::uint8_t next = file_.data[at + 1];
            if (file_.data[at] == 0xff && next != 0 && next != 0xff &&
                (next < 0xd0 || next > 0xd7)) {
                return;
            }
        }
        at = file_.size;
    }

    void read_frame(std::uint8_t marker, ByteView body) {
        height_ = big_endian(body, 1, 2);
        width_ = big_endian(body, 3, 2);
        if (marker == 0xc2 || marker == 0xca) {  // progressive
            missing_.clear();
            for (std::size_t i = 0; i < body.data[5] && 6 + 3 * i < body.size; ++i) {
                missing_[body.data[6 + 3 * i]].set();
            }
        }
    }

    void read_scan(ByteView body) {
        const std::size_t count = body.size > 0 ? body.data[0] : 0;
        if (body.size < 4 + 2 * count) {
            fail("JPEG: a scan without its header");
        }
        scan_seen_ = true;
        const std::uint8_t* spectrum = body.data + 1 + 2 * count;
        if ((spectrum[2] & 15) != 0) {
            return;  // not to the last bit
        }
        for (std::size_t i = 0; i < count; ++i) {
            const auto found = missing_.find(body.data[1 + 2 * i]);
            for (unsigned k = spectrum[0]; found != missing_.end() && k <= spectrum[1] && k < 64;
                 ++k) {
                found->second.reset(k);
            }
        }
    }

    ByteView file_;
    std::uint64_t width_ = 0;
    std::uint64_t height_ = 0;
    bool scan_seen_ = false;
    std::map<std::uint8_t, Coefficients> missing_;  // of a progressive image, by component
};

std::uint32_t crc32(ByteView bytes) {
    static const std::array<std::uint32_t, 256> kTable = [] {
        std::array<std::uint32_t, 256> table = {};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) {
                value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320U : 0U);
            }
            table[i] = value;
        }
        return table;
    }();
    std::uint32_t crc = 0xffffffff;
    for (std::size_t i = 0; i < bytes.size; ++i) {
        crc = (crc >> 8) ^ kTable[(crc ^ bytes.data[i]) & 0xff];
    }
    return ~crc;
}

constexpr std::size_t kPngHeader = 16;   // the place of its data
constexpr std::uint8_t kPngPalette = 3;  // a colour type

// A chunk of a PNG that pixels need.
struct PngPart {
    std::string name;
    std::size_t start;
    std::size_t end;
};

// The least and the most bytes of a tRNS chunk, by the colour type; none where there is no such
// one.
std::pair<std::size_t, std::size_t> alpha_bytes(std::uint8_t colour) {
    switch (colour) {
        case 0:
            return {2, 2};
        case 2:
            return {6, 6};
        case kPngPalette:
            return {1, 256};
        default:
            return {0, 0};
    }
}

// Ancillary chunks are passed over: they change no pixel, but for tRNS.
std::vector<PngPart> png_parts(ByteView file) {
    std::vector<PngPart> parts;
    std::string name;
    for (std::size_t at = 8, end = 0; name != "IEND"; at = end) {
        if (file.size < at + 12 || big_endian(file, at, 4) > file.size - at - 12) {
            fail("PNG: the file ends inside the image");
        }
        const auto length = static_cast<std::size_t>(big_endian(file, at, 4));
        end = at + 12 + length;
        name.assign(reinterpret_cast<const char*>(file.data) + at + 4, 4);
        if (at == 8 && (name != "IHDR" || length != 13)) {
            fail("PNG: it does not begin with its header");
        }
        const bool is_alpha = name == "tRNS" && alpha_bytes(file.data[kPngHeader + 9]).second != 0;
        if ((name[0] & 0x20) != 0 && !is_alpha) {
            continue;
        }
        if (!is_alpha && name != "IHDR" && name != "PLTE" && name != "IDAT" && name != "IEND") {
            fail("PNG: an unknown part");
        }
        if (crc32({file.data + at + 4, length + 4}) != big_endian(file, end - 4, 4)) {
            fail("PNG: the checksum of " + name + " does not hold");
        }
        parts.push_back({name, at, end});
    }
    return parts;
}

using PngParts = std::vector<PngPart>;

PngParts::const_iterator find_part(const PngParts& parts, const char* name) {
    return std::find_if(parts.begin(), parts.end(),
                        [name](const PngPart& part) { return part.name == name; });
}

// Each part but IDAT stands once, and all IDAT are one piece.
void check_png_order(const PngParts& parts) {
    for (const char* name : {"IHDR", "PLTE", "tRNS"}) {
        if (std::count_if(parts.begin(), parts.end(),
                          [name](const PngPart& part) { return part.name == name; }) > 1) {
            fail("PNG: its parts are out of order");
        }
    }
    const PngPart* last = nullptr;
    for (const PngPart& part : parts) {
        if (part.name == "IDAT") {
            if (last != nullptr && last->end != part.start) {
                fail("PNG: its parts are out of order");
            }
            last = &part;
        }
    }
}

void check_png(ByteView file) {
    const PngParts parts = png_parts(file);
    const std::uint8_t colour = file.data[kPngHeader + 9];
    const auto length = [](const PngPart& part) { return part.end - part.start - 12; };
    const auto pixels = find_part(parts, "IDAT");
    const auto palette = find_part(parts, "PLTE");
    const auto alpha = find_part(parts, "tRNS");
    if (pixels == parts.end() || (colour == kPngPalette && palette > pixels)) {
        fail("PNG: its pixels or its palette are missing");
    }
    check_png_order(parts);
    if (palette != parts.end() && (palette > pixels || length(*palette) % 3 != 0 ||
                                   length(*palette) < 3 || length(*palette) > 768)) {
        fail("PNG: its palette is out of order");
    }
    const auto [least, most] = alpha_bytes(colour);
    if (alpha != parts.end() &&
        (alpha > pixels || length(*alpha) < least || length(*alpha) > most ||
         (colour == kPngPalette && alpha < palette))) {
        fail("PNG: its transparency is out of order");
    }
    check_image_size(big_endian(file, kPngHeader, 4), big_endian(file, kPngHeader + 4, 4));
}

void check_webp(ByteView file) {
    const ByteView image = webp_image(file);
    if (image.data[-5] == 'L') {  // the last letter of its name
        const std::uint64_t bits = little_endian(image, 1, 4);
        check_image_size((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1);
    } else {
        check_image_size(little_endian(image, 6, 2) & 0x3fff, little_endian(image, 8, 2) & 0x3fff);
    }
}

}  // namespace

ByteView webp_image(ByteView file) {
    const std::uint64_t end = little_endian(file, 4, 4) + 8;
    if (end > file.size) {
        fail("WebP: the file ends inside the image");
    }
    for (std::uint64_t at = 12; at + 8 <= end;) {
        const auto start = static_cast<std::size_t>(at);
        const std::uint64_t length = little_endian(file, start + 4, 4);
        if (length > end - at - 8) {
            fail("WebP: the file ends inside the image");
        }
        const ByteView body(file.data + start + 8, static_cast<std::size_t>(length));
        if (has_name(file, start, "VP8X") && length >= 10 && (body.data[0] & 0x02) != 0) {
            throw InputError("an animated WebP, which is not read: save one frame of it");
        }
        if ((has_name(file, start, "VP8 ") && length >= 10) ||
            (has_name(file, start, "VP8L") && length >= 5)) {
            return body;
        }
        at += 8 + length + length % 2;
    }
    fail("WebP: it holds no image");
}

std::string check_structure(ByteView file) {
    const std::string kind = kind_of(file);
    if (kind == "JPEG") {
        JpegWalk(file).run();
    } else if (kind == "PNG") {
        check_png(file);
    } else if (kind == "WebP") {
        check_webp(file);
    } else if (kind == "BMP" || kind == "PPM") {
        const Bitmap bitmap = kind == "BMP" ? read_bmp(file) : read_ppm(file);
        check_image_size(bitmap.width, bitmap.height);
    } else if (file.size == 0) {
        throw InputError("the file is empty");
    } else {
        const std::string neither = "neither a JPEG nor a PNG, WebP, BMP or PPM";
        const bool is_vowel =
            !kind.empty() && std::string("AEIX").find(kind.front()) != std::string::npos;
        throw InputError(kind.empty() ? neither
                                      : (is_vowel ? "an " : "a ") + kind + ", and " + neither);
    }
    return kind;
}

}  // namespace edgevit
