#include "structure.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <map>
#include <optional>

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

void check_png(ByteView file) {
    bool has_palette = false;
    bool has_pixels = false;
    for (std::size_t at = 8;;) {
        if (file.size < at + 12 || big_endian(file, at, 4) > file.size - at - 12) {
            fail("PNG: the file ends inside the image");
        }
        const auto length = static_cast<std::size_t>(big_endian(file, at, 4));
        const std::size_t end = at + 12 + length;
        const std::string name(reinterpret_cast<const char*>(file.data) + at + 4, 4);
        if (at == 8 && (name != "IHDR" || length != 13)) {
            fail("PNG: it does not begin with its header");
        }
        if ((file.data[at + 4] & 0x20) != 0) {  // ancillary: what it says changes no pixel
            at = end;
            continue;
        }
        if (name != "IHDR" && name != "PLTE" && name != "IDAT" && name != "IEND") {
            fail("PNG: an unknown part");
        }
        if (crc32({file.data + at + 4, length + 4}) != big_endian(file, end - 4, 4)) {
            fail("PNG: the checksum of " + name + " does not hold");
        }
        has_palette = has_palette || name == "PLTE";
        has_pixels = has_pixels || name == "IDAT";
        if (name == "IEND") {
            break;
        }
        at = end;
    }
    constexpr std::size_t kHeader = 16;
    constexpr std::uint8_t kPalette = 3;
    if (!has_pixels || (file.data[kHeader + 9] == kPalette && !has_palette)) {
        fail("PNG: its pixels or its palette are missing");
    }
    check_image_size(big_endian(file, kHeader, 4), big_endian(file, kHeader + 4, 4));
}

void check_webp(ByteView file) {
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
        const std::uint8_t* body = file.data + start + 8;
        if (has_name(file, start, "VP8X") && file.size >= start + 18) {
            if ((body[0] & 0x02) != 0) {
                throw InputError("an animated WebP, which is not read: save one frame of it");
            }
        } else if (has_name(file, start, "VP8 ") && length >= 10) {
            check_image_size(little_endian(file, start + 14, 2) & 0x3fff,
                             little_endian(file, start + 16, 2) & 0x3fff);
            return;
        } else if (has_name(file, start, "VP8L") && length >= 5) {
            const std::uint64_t bits = little_endian(file, start + 9, 4);
            check_image_size((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1);
            return;
        }
        at += 8 + length + length % 2;
    }
    fail("WebP: it holds no image");
}

}  // namespace

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
