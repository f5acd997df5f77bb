#include "edgevit_image.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>
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

bool is_side(std::int32_t side, std::int32_t least, std::int64_t most) {
    return side >= least && side <= most;
}

void check(const edgevit_preprocessing& rules, std::size_t size_bytes) {
    const std::int32_t height = rules.height, width = rules.width;
    require(is_side(height, 1, edgevit::kMaxImageSize) && is_side(width, 1, edgevit::kMaxImageSize),
            "height or width is not 1 to 4096");
    require(rules.resize >= EDGEVIT_RESIZE_NONE && rules.resize <= EDGEVIT_RESIZE_FIT,
            "resize is no EDGEVIT_RESIZE_...");
    if (rules.resize != EDGEVIT_RESIZE_NONE) {
        require(is_side(rules.resize_height, 1, edgevit::kMaxResizeSize) &&
                    is_side(rules.resize_width, 1, edgevit::kMaxResizeSize),
                "resize_height or resize_width is not 1 to 16384");
        require(rules.resize != EDGEVIT_RESIZE_SHORTER || rules.resize_height == rules.resize_width,
                "resize_height and resize_width are not the shorter side's both");
    }
    require(rules.interpolation >= EDGEVIT_BICUBIC && rules.interpolation <= EDGEVIT_AREA,
            "interpolation is no EDGEVIT_BICUBIC to EDGEVIT_AREA");
    require(rules.channels >= EDGEVIT_RGB && rules.channels <= EDGEVIT_GREY,
            "channels is neither EDGEVIT_RGB nor EDGEVIT_BGR nor EDGEVIT_GREY");
    const std::size_t channels = rules.channels == EDGEVIT_GREY ? 1 : 3;
    require(
        size_bytes == static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * channels,
        "size_bytes is not height * width * channels");
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

// A manifest whose input tensor holds the pixels themselves. Core ML turns the colours of a BGR
// model by itself, so its pictures are RGB too.
edgevit::Manifest pixels_as_they_are(const edgevit_preprocessing& given) {
    edgevit::Manifest manifest;
    edgevit::Preprocessing& rules = manifest.preprocessing;
    rules.size = {given.width, given.height};
    rules.resize = static_cast<edgevit::Resize>(given.resize);
    rules.target = {given.resize_width, given.resize_height};
    rules.filter = {static_cast<edgevit::Interpolation>(given.interpolation), given.antialias != 0};
    rules.channels =
        given.channels == EDGEVIT_GREY ? edgevit::Channels::grey : edgevit::Channels::rgb;
    rules.is_at_top_left = given.pads_after != 0;
    std::copy_n(given.pad_color, 3, rules.pad_color.begin());
    if (given.channels == EDGEVIT_BGR) {
        std::swap(rules.pad_color[0], rules.pad_color[2]);
    }
    manifest.input.dtype = edgevit::DType::uint8;
    edgevit::Bytes identity(256);
    for (std::size_t i = 0; i < identity.size(); ++i) {
        identity[i] = static_cast<std::uint8_t>(i);
    }
    const int channels = edgevit::channel_count(rules.channels);
    manifest.table.assign(static_cast<std::size_t>(channels), identity);
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
                             const edgevit_preprocessing* preprocessing, std::uint8_t* out,
                             std::size_t size_bytes, char* message,
                             std::size_t message_size_bytes) {
    return guarded(message, message_size_bytes, [&] {
        require(image != nullptr && preprocessing != nullptr && out != nullptr,
                "image, preprocessing or out is null");
        const edgevit::Frame frame = checked(*image);
        check(*preprocessing, size_bytes);
        edgevit::Image scratch;
        edgevit::Preprocessor(pixels_as_they_are(*preprocessing))
            .run(edgevit::upright_rgb(frame, scratch), out);
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
