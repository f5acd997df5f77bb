#include "ppm.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "core/bytes.h"
#include "core/errors.h"

namespace {

constexpr std::uint64_t kMaxFileBytes = 256 << 20;
constexpr int kMaxSide = 16384;

// A header: "P6", then three numbers, parted by white space and comments from # to the line's end.
class Header {
  public:
    explicit Header(const edgevit::Bytes& bytes) : bytes_(bytes) {}

    int number(int largest) {
        skip_space();
        int value = -1;
        for (; at_ < bytes_.size() && std::isdigit(bytes_[at_]) != 0; ++at_) {
            value = (value < 0 ? 0 : value) * 10 + (bytes_[at_] - '0');
            if (value > largest) {
                return -1;
            }
        }
        return value;
    }
    // Where the pixels start: one white space behind the last number.
    std::size_t end() const { return at_ + 1; }

  private:
    void skip_space() {
        for (; at_ < bytes_.size(); ++at_) {
            if (bytes_[at_] == '#') {
                while (at_ < bytes_.size() && bytes_[at_] != '\n') {
                    ++at_;
                }
            } else if (std::isspace(bytes_[at_]) == 0) {
                return;
            }
        }
    }

    const edgevit::Bytes& bytes_;
    std::size_t at_ = 2;
};

}  // namespace

edgevit::Image read_ppm(const std::filesystem::path& path) {
    const edgevit::Bytes bytes = edgevit::read_file(path, kMaxFileBytes);
    const bool is_ppm = bytes.size() > 2 && bytes[0] == 'P' && bytes[1] == '6';
    Header header(bytes);
    edgevit::Image image;
    const int width = is_ppm ? header.number(kMaxSide) : -1;
    const int height = is_ppm ? header.number(kMaxSide) : -1;
    const int largest = is_ppm ? header.number(65535) : -1;
    if (width < 1 || height < 1 || largest != 255) {
        throw edgevit::InputError(path.string() +
                                  ": not a binary PPM (P6) with 8 bits a channel and sides up to " +
                                  std::to_string(kMaxSide));
    }
    const std::size_t pixel_bytes =
        std::size_t{3} * static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
    if (bytes.size() < header.end() || bytes.size() - header.end() < pixel_bytes) {
        throw edgevit::InputError(path.string() + ": ends before its last pixel");
    }
    image.reset(width, height);
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(header.end()), pixel_bytes,
                image.rgb.begin());
    return image;
}
