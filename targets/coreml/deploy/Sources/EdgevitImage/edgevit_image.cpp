#include "edgevit_image.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <vector>

#include "core/errors.h"
#include "core/frame.h"
#include "core/limits.h"
#include "core/preprocess.h"
#include "core/scores.h"

namespace {

void require(bool condition, const char* message) {
    if (!condition) {
        throw std::invalid_argument(message);
    }
}

void check(const edgevit_preprocessing& preprocessing, std::size_t rgb_size_bytes) {
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

edgevit::FrameFormat format_of(std::int32_t order) {
    if (order == EDGEVIT_ORDER_NV12) {
        return edgevit::FrameFormat::nv12;
    }
    require(order == EDGEVIT_ORDER_RGBA || order == EDGEVIT_ORDER_BGRA,
            "order is no EDGEVIT_ORDER");
    return order == EDGEVIT_ORDER_RGBA ? edgevit::FrameFormat::rgba : edgevit::FrameFormat::bgra;
}

edgevit::Frame checked(const edgevit_pixels& image) {
    require(image.width > 0 && image.height > 0, "the image has no pixels");
    edgevit::Frame frame;
    frame.planes[0] = {image.pixels, image.stride_bytes, 1};
    frame.planes[1] = {image.chroma, image.chroma_stride_bytes, 2};
    frame.width = image.width;
    frame.height = image.height;
    frame.format = format_of(image.order);
    frame.colour = static_cast<edgevit::YuvColour>(image.colour);
    frame.rotation_degrees = image.rotation_degrees;
    frame.is_mirrored = image.is_mirrored != 0;
    edgevit::check_frame(frame);
    return frame;
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

// Runs `action`; what it throws becomes a code and a message.
template <typename Action>
std::int32_t guarded(char* message, std::size_t message_size_bytes, const Action& action) noexcept {
    const auto failed = [&](std::int32_t code, const char* reason) {
        return fail(code, reason, message, message_size_bytes);
    };
    try {
        return action();
    } catch (const std::invalid_argument& error) {
        return failed(EDGEVIT_IMAGE_BAD_ARGUMENT, error.what());
    } catch (const edgevit::CallError& error) {
        return failed(EDGEVIT_IMAGE_BAD_ARGUMENT, error.what());
    } catch (const edgevit::InputError& error) {
        return failed(EDGEVIT_IMAGE_REFUSED, error.what());
    } catch (const std::bad_alloc&) {
        return failed(EDGEVIT_IMAGE_OUT_OF_MEMORY, "out of memory");
    } catch (...) { return failed(EDGEVIT_IMAGE_INTERNAL, "unexpected error"); }
}

}  // namespace

std::int32_t edgevit_prepare(const edgevit_pixels* image,
                             const edgevit_preprocessing* preprocessing, std::uint8_t* rgb,
                             std::size_t rgb_size_bytes, char* message,
                             std::size_t message_size_bytes) {
    return guarded(message, message_size_bytes, [&] {
        require(image != nullptr && preprocessing != nullptr && rgb != nullptr,
                "image, preprocessing or rgb is null");
        const edgevit::Frame frame = checked(*image);
        check(*preprocessing, rgb_size_bytes);
        edgevit::Image scratch;
        edgevit::Preprocessor(pixels_as_they_are(*preprocessing))
            .run(edgevit::upright_rgb(frame, scratch), rgb);
        return EDGEVIT_IMAGE_OK;
    });
}

std::int32_t edgevit_best(const float* scores, std::size_t classes, std::int32_t are_logits,
                          std::size_t count, std::int32_t* indices, double* probabilities,
                          char* message, std::size_t message_size_bytes) {
    return guarded(message, message_size_bytes, [&] {
        require(scores != nullptr && indices != nullptr && probabilities != nullptr,
                "scores, indices or probabilities is null");
        require(classes >= 1 && classes <= edgevit::kMaxClasses, "classes is not 1 to 1000000");
        require(count <= classes, "count is over classes");
        if (!edgevit::are_finite(scores, classes)) {
            return fail(EDGEVIT_IMAGE_NOT_FINITE, "the model answered a value that is not finite",
                        message, message_size_bytes);
        }
        std::vector<double> all(scores, scores + classes);
        if (are_logits != 0) {
            edgevit::softmax(scores, classes, all.data());
        }
        std::vector<std::size_t> order;
        edgevit::rank(scores, classes, count, order);
        for (std::size_t i = 0; i < count; ++i) {
            indices[i] = static_cast<std::int32_t>(order[i]);
            probabilities[i] = all[order[i]];
        }
        return EDGEVIT_IMAGE_OK;
    });
}
