#include <csetjmp>
#include <cstdio>
#include <string>

// jpeglib.h needs FILE and size_t from above.
#include <jpeglib.h>

#include <jerror.h>

#include "core/errors.h"
#include "decode.h"

namespace edgevit {
namespace {

// libjpeg reports a fatal error by calling a function that must not return. It jumps back into
// read_header() or read_rows(), which hold nothing that a skipped destructor would have to free.
struct ErrorManager {
    jpeg_error_mgr base;
    std::jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
    bool ended_early;
};

ErrorManager& manager_of(j_common_ptr info) { return *reinterpret_cast<ErrorManager*>(info->err); }

[[noreturn]] void on_error(j_common_ptr info) {
    ErrorManager& errors = manager_of(info);
    errors.base.format_message(info, errors.message);
    std::longjmp(errors.jump, 1);
}

void on_message(j_common_ptr info, int level) {
    // libjpeg fills a missing end with grey and only warns; every other warning Pillow ignores too.
    if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) {
        manager_of(info).ended_early = true;
    }
}

class JpegReader {
  public:
    JpegReader() {
        info_.err = jpeg_std_error(&errors_.base);
        errors_.base.error_exit = on_error;
        errors_.base.emit_message = on_message;
    }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;
    ~JpegReader() { jpeg_destroy_decompress(&info_); }

    void decode(ByteView file, Image& out) {
        if (!read_header(file)) {
            throw InputError(std::string("damaged JPEG: ") + errors_.message);
        }
        check_image_size(info_.image_width, info_.image_height);
        const bool four_channels = info_.out_color_space == JCS_CMYK;
        out.reset(static_cast<int>(info_.image_width), static_cast<int>(info_.image_height));
        line_.resize(four_channels ? static_cast<std::size_t>(info_.image_width) * 4 : 0);
        if (!read_rows(out.rgb.data(), out.stride_bytes(),
                       line_.empty() ? nullptr : line_.data())) {
            throw InputError(std::string("damaged JPEG: ") + errors_.message);
        }
        if (errors_.ended_early) {
            throw InputError("damaged JPEG: the file ends inside the image");
        }
    }

  private:
    bool read_header(ByteView file) {
        if (setjmp(errors_.jump) != 0) {
            return false;
        }
        jpeg_create_decompress(&info_);
        jpeg_mem_src(&info_, file.data, static_cast<unsigned long>(file.size));
        jpeg_read_header(&info_, TRUE);
        info_.out_color_space = info_.num_components == 4 ? JCS_CMYK : JCS_RGB;
        return true;
    }

    // `line` is a buffer of 4 * width bytes for CMYK, null where libjpeg gives RGB itself.
    bool read_rows(std::uint8_t* rgb, std::size_t stride_bytes, std::uint8_t* line) {
        if (setjmp(errors_.jump) != 0) {
            return false;
        }
        jpeg_start_decompress(&info_);
        while (info_.output_scanline < info_.output_height) {
            std::uint8_t* target = rgb + info_.output_scanline * stride_bytes;
            JSAMPROW row = line != nullptr ? line : target;
            jpeg_read_scanlines(&info_, &row, 1);
            if (line != nullptr) {
                from_inverted_cmyk(line, target, info_.output_width);
            }
        }
        return true;
    }

    // Adobe stores 255 - ink. Pillow: rgb = (255 - K) - ink * (255 - K) / 255, rounded.
    static void from_inverted_cmyk(const std::uint8_t* cmyk, std::uint8_t* rgb, unsigned width) {
        for (unsigned x = 0; x < width; ++x, cmyk += 4) {
            for (unsigned c = 0; c < 3; ++c) {
                const unsigned product = (255U - cmyk[c]) * cmyk[3] + 128U;
                const unsigned rounded = ((product >> 8) + product) >> 8;  // product / 255
                *rgb++ = static_cast<std::uint8_t>(cmyk[3] - rounded);
            }
        }
    }

    jpeg_decompress_struct info_ = {};
    ErrorManager errors_ = {};
    Bytes line_;
};

}  // namespace

void decode_jpeg(ByteView file, Image& out) { JpegReader().decode(file, out); }

}  // namespace edgevit
