#include "edgevit_image.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "core/errors.h"
#include "core/limits.h"
#include "core/preprocess.h"

namespace {

constexpr std::size_t kChannels = 4;

void require(bool condition, const char* message) {
    if (!condition) {
        throw std::invalid_argument(message);
    }
}

void check(const edgevit_image& image, const edgevit_preprocessing& preprocessing,
           std::size_t rgb_size_bytes) {
    require(image.pixels != nullptr, "pixels is null");
    require(image.order == EDGEVIT_ORDER_RGBA || image.order == EDGEVIT_ORDER_BGRA,
            "order is neither EDGEVIT_ORDER_RGBA nor EDGEVIT_ORDER_BGRA");
    require(image.width > 0 && image.height > 0, "the image has no pixels");
    if (image.height > edgevit::kMaxImagePixels / image.width) {
        throw edgevit::InputError("the image has " + std::to_string(image.width) + "x" +
                                  std::to_string(image.height) + " pixels, over 64 million");
    }
    require(image.stride_bytes >= image.width * kChannels, "stride_bytes is below width * 4");
    require(image.stride_bytes <= edgevit::kMaxStrideBytes, "stride_bytes is over 1 GiB");
    const std::int32_t size = preprocessing.image_size;
    require(size >= 1 && size <= edgevit::kMaxImageSize, "image_size is not 1 to 4096");
    const std::int32_t resize = preprocessing.resize_size;
    require(resize == 0 || (resize >= size && resize <= edgevit::kMaxResizeSize),
            "resize_size is neither 0 nor image_size to 16384");
    require(preprocessing.interpolation == EDGEVIT_BICUBIC ||
                preprocessing.interpolation == EDGEVIT_BILINEAR,
            "interpolation is neither EDGEVIT_BICUBIC nor EDGEVIT_BILINEAR");
    const auto side = static_cast<std::size_t>(size);
    require(rgb_size_bytes == side * side * 3, "rgb_size_bytes is not image_size^2 * 3");
}

edgevit::Image to_rgb(const edgevit_image& image) {
    edgevit::Image rgb;
    rgb.reset(static_cast<int>(image.width), static_cast<int>(image.height));
    const std::size_t red = image.order == EDGEVIT_ORDER_RGBA ? 0 : 2;
    for (std::size_t y = 0; y < image.height; ++y) {
        const std::uint8_t* source = image.pixels + y * image.stride_bytes;
        std::uint8_t* target = rgb.row(static_cast<int>(y));
        for (std::size_t x = 0; x < image.width; ++x, source += kChannels, target += 3) {
            target[0] = source[red], target[1] = source[1], target[2] = source[2 - red];
        }
    }
    return rgb;
}

// A manifest whose input tensor holds the pixels themselves.
edgevit::Manifest pixels_as_they_are(const edgevit_preprocessing& preprocessing) {
    edgevit::Manifest manifest;
    manifest.preprocessing.image_size = preprocessing.image_size;
    if (preprocessing.resize_size != 0) {
        manifest.preprocessing.resize_size = preprocessing.resize_size;
    }
    manifest.preprocessing.interpolation = preprocessing.interpolation == EDGEVIT_BICUBIC
                                               ? edgevit::Interpolation::bicubic
                                               : edgevit::Interpolation::bilinear;
    manifest.input.dtype = edgevit::DType::uint8;
    edgevit::Bytes identity(256);
    for (std::size_t i = 0; i < identity.size(); ++i) {
        identity[i] = static_cast<std::uint8_t>(i);
    }
    manifest.table.fill(identity);
    return manifest;
}

std::int32_t fail(std::int32_t code, const char* reason, char* message, std::size_t size) noexcept {
    if (message != nullptr && size > 0) {
        const std::size_t length = std::min(std::strlen(reason), size - 1);
        std::memcpy(message, reason, length);
        message[length] = '\0';
    }
    return code;
}

}  // namespace

std::int32_t edgevit_prepare(const edgevit_image* image, const edgevit_preprocessing* preprocessing,
                             std::uint8_t* rgb, std::size_t rgb_size_bytes, char* message,
                             std::size_t message_size_bytes) {
    const auto failed = [&](std::int32_t code, const char* reason) noexcept {
        return fail(code, reason, message, message_size_bytes);
    };
    try {
        require(image != nullptr && preprocessing != nullptr && rgb != nullptr,
                "image, preprocessing or rgb is null");
        check(*image, *preprocessing, rgb_size_bytes);
        const edgevit::Image source = to_rgb(*image);
        edgevit::Preprocessor(pixels_as_they_are(*preprocessing)).run(source.view(), rgb);
        return EDGEVIT_OK;
    } catch (const std::invalid_argument& error) {
        return failed(EDGEVIT_BAD_ARGUMENT, error.what());
    } catch (const edgevit::InputError& error) {
        return failed(EDGEVIT_IMAGE_REFUSED, error.what());
    } catch (const std::bad_alloc&) {
        return failed(EDGEVIT_OUT_OF_MEMORY, "out of memory");
    } catch (...) { return failed(EDGEVIT_INTERNAL, "unexpected error"); }
}
