#include <png.h>

#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

#include "core/errors.h"
#include "decode.h"

namespace edgevit {
namespace {

// What libpng's callbacks share with the reader.
struct Source {
    ByteView file;
    std::size_t at = 0;
    char message[128] = {};
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
    auto& source = *static_cast<Source*>(png_get_error_ptr(png));
    std::strncpy(source.message, message, sizeof source.message - 1);
    png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep out, std::size_t count) {
    auto& source = *static_cast<Source*>(png_get_io_ptr(png));
    if (count > source.file.size - source.at) {
        png_error(png, "the file ends inside the image");
    }
    std::memcpy(out, source.file.data + source.at, count);
    source.at += count;
}

// libpng reports a fatal error by jumping back to the last setjmp. The functions that call setjmp
// hold nothing that a skipped destructor would have to free.
class PngReader {
  public:
    explicit PngReader(ByteView file) {
        source_.file = file;
        png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source_, on_error, on_warning);
        info_ = png_ != nullptr ? png_create_info_struct(png_) : nullptr;
        if (info_ == nullptr) {
            png_destroy_read_struct(&png_, nullptr, nullptr);
            throw Error("libpng could not start: version mismatch or out of memory");
        }
    }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;
    ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

    void decode(Image& out, bool with_alpha) {
        check(read_header());
        const png_uint_32 width = png_get_image_width(png_, info_);
        const png_uint_32 height = png_get_image_height(png_, info_);
        check_image_size(width, height);
        if (png_get_color_type(png_, info_) == PNG_COLOR_TYPE_GRAY &&
            png_get_bit_depth(png_, info_) == 16) {
            throw InputError(
                "a PNG of 16-bit grey, which has no agreed 8-bit form: convert it first");
        }
        out.reset(static_cast<int>(width), static_cast<int>(height), with_alpha ? 4 : 3);
        rows_.resize(height);
        for (png_uint_32 y = 0; y < height; ++y) {
            rows_[y] = out.row(static_cast<int>(y));
        }
        const bool has_palette = png_get_color_type(png_, info_) == PNG_COLOR_TYPE_PALETTE;
        check(read_rows(has_palette, with_alpha, has_palette ? width : out.stride_bytes()));
        if (has_palette) {
            apply_palette(out);
        }
    }

  private:
    void check(bool ok) const {
        if (!ok) {
            throw InputError(std::string("damaged PNG: ") + source_.message);
        }
    }

    bool read_header() {
        if (setjmp(png_jmpbuf(png_)) != 0) {
            return false;
        }
        png_set_read_fn(png_, &source_, on_read);
        // Text and colour profiles change no pixel, and a damaged one stops no decoder.
        png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
        png_read_info(png_, info_);
        return true;
    }

    bool read_rows(const bool has_palette, const bool with_alpha, const std::size_t row_bytes) {
        if (setjmp(png_jmpbuf(png_)) != 0) {
            return false;
        }
        if (has_palette) {
            png_set_packing(png_);  // indices, one a byte; see apply_palette
        } else {
            png_set_expand_gray_1_2_4_to_8(png_);
            png_set_strip_16(png_);
            if (with_alpha) {
                png_set_tRNS_to_alpha(png_);
                png_set_add_alpha(png_, 0xff, PNG_FILLER_AFTER);
            } else {
                png_set_strip_alpha(png_);
            }
            png_set_gray_to_rgb(png_);
        }
        png_set_interlace_handling(png_);
        png_read_update_info(png_, info_);
        if (png_get_rowbytes(png_, info_) != row_bytes) {
            png_error(png_, "unexpected row size");
        }
        png_read_image(png_, rows_.data());
        return true;
    }

    // Each row holds `width` indices at its start: widened from the right so that none is lost.
    // Done here because libpng paints an index beyond the palette black and says nothing.
    void apply_palette(Image& out) {
        png_colorp palette = nullptr;
        int colours = 0;
        png_get_PLTE(png_, info_, &palette, &colours);
        png_bytep alpha = nullptr;
        int alphas = 0;
        png_get_tRNS(png_, info_, &alpha, &alphas, nullptr);
        const auto channels = static_cast<std::size_t>(out.channels);
        for (int y = 0; y < out.height; ++y) {
            std::uint8_t* row = out.row(y);
            for (std::size_t x = static_cast<std::size_t>(out.width); x-- > 0;) {
                const std::uint8_t index = row[x];
                if (index >= colours) {
                    throw InputError("damaged PNG: colour " + std::to_string(index) +
                                     " is not in its palette of " + std::to_string(colours));
                }
                row[channels * x] = palette[index].red;
                row[channels * x + 1] = palette[index].green;
                row[channels * x + 2] = palette[index].blue;
                if (channels == 4) {
                    row[channels * x + 3] = index < alphas ? alpha[index] : 255;
                }
            }
        }
    }

    Source source_;
    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    std::vector<png_bytep> rows_;
};

}  // namespace

void decode_png(ByteView file, Image& out, bool with_alpha) {
    PngReader(file).decode(out, with_alpha);
}

}  // namespace edgevit
