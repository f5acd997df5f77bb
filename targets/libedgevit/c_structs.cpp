#include "c_structs.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>

#include "core/limits.h"

namespace edgevit {
namespace {

static_assert(static_cast<int>(DType::int8) == EDGEVIT_INT8);
static_assert(static_cast<int>(DType::uint8) == EDGEVIT_UINT8);
static_assert(static_cast<int>(DType::float16) == EDGEVIT_FLOAT16);
static_assert(static_cast<int>(DType::float32) == EDGEVIT_FLOAT32);
static_assert(kMaxTensorRank == EDGEVIT_MAX_RANK);
static_assert(static_cast<int>(PixelFormat::rgb) == EDGEVIT_RGB888);
static_assert(static_cast<int>(PixelFormat::rgba) == EDGEVIT_RGBA8888);
static_assert(static_cast<int>(PixelFormat::bgra) == EDGEVIT_BGRA8888);

static_assert(static_cast<int>(FrameFormat::nv12) == EDGEVIT_NV12);
static_assert(static_cast<int>(FrameFormat::nv21) == EDGEVIT_NV21);
static_assert(static_cast<int>(FrameFormat::i420) == EDGEVIT_I420);
static_assert(static_cast<int>(FrameFormat::yuv420) == EDGEVIT_YUV420);
static_assert(static_cast<int>(YuvColour::bt601_full) == EDGEVIT_BT601_FULL);
static_assert(static_cast<int>(YuvColour::bt709_limited) == EDGEVIT_BT709_LIMITED);
static_assert(static_cast<int>(YuvColour::bt709_full) == EDGEVIT_BT709_FULL);
static_assert(static_cast<int>(LogLevel::info) == EDGEVIT_LOG_INFO);
static_assert(static_cast<int>(LogLevel::warning) == EDGEVIT_LOG_WARNING);

// The fields that the first header of each structure had: every caller has them.
constexpr std::size_t kFirstOptionsBytes = offsetof(edgevit_options, runtime_options);
constexpr std::size_t kFirstImageBytes = offsetof(edgevit_image, reserved);
constexpr std::size_t kFirstTensorBytes = offsetof(edgevit_tensor, reserved);
constexpr std::size_t kMaxRuntimeOptions = 256;

// Fields come and go whole, as far as the caller's header knows them.
void check_struct_size(std::size_t size, std::size_t first, std::size_t ours, const char* what) {
    if (size < first || size > ours || size % sizeof(std::int32_t) != 0) {
        throw CallError(std::string(what) + ".struct_size_bytes is " + std::to_string(size) +
                        ", this library knows " + std::to_string(first) + " to " +
                        std::to_string(ours) +
                        ": set it to its sizeof, and load a library as new as the header");
    }
}

RuntimeOptions given_runtime_options(const edgevit_options& given) {
    RuntimeOptions options;
    const std::size_t count = given.runtime_option_count;
    require(count == 0 || given.runtime_options != nullptr, "options.runtime_options is null");
    require(count <= kMaxRuntimeOptions, "options.runtime_option_count is over 256");
    for (std::size_t i = 0; i < count; ++i) {
        const auto& [name, value] = given.runtime_options[i];
        require(name != nullptr && value != nullptr, "a runtime option's name or value is null");
        add_runtime_option(options, name, value);
    }
    for (const auto& [name, value] :
         {std::pair("compute_units", given.compute_units),
          std::pair("plan_cache", given.plan_cache), std::pair("accelerator", given.accelerator)}) {
        if (value != nullptr) {
            add_runtime_option(options, name, value);
        }
    }
    return options;
}

}  // namespace

edgevit_options known_options(const edgevit_options* options) {
    edgevit_options given;
    edgevit_options_init(&given);
    if (options != nullptr) {
        const std::size_t size = options->struct_size_bytes;
        check_struct_size(size, kFirstOptionsBytes, sizeof given, "options");
        std::memcpy(&given, options, size);
    }
    return given;
}

BackendOptions backend_options(const edgevit_options& given) {
    BackendOptions options;
    if (given.threads < 0 || given.threads > kMaxThreads) {
        throw InputError("options.threads is " + std::to_string(given.threads) +
                         "; 1 to 256, or 0 for the default, can be used");
    }
    options.threads = given.threads == 0 ? 1 : given.threads;
    options.runtime_library = given.runtime_library == nullptr ? "" : given.runtime_library;
    options.runtime_options = given_runtime_options(given);
    if (given.warmup_runs < 0 || given.warmup_runs > kMaxWarmup) {
        throw InputError("options.warmup_runs is " + std::to_string(given.warmup_runs) + "; 0 to " +
                         std::to_string(kMaxWarmup) + " can be used");
    }
    options.warmup_runs = given.warmup_runs;
    if (given.log != nullptr) {
        options.log = [log = given.log, user = given.log_user](LogLevel level,
                                                               const std::string& message) {
            log(user, static_cast<edgevit_log_level>(level), message.c_str());
        };
    }
    return options;
}

Frame frame_of(const edgevit_image* image) {
    require(image != nullptr, "the image is null");
    check_struct_size(image->struct_size_bytes, kFirstImageBytes, sizeof *image, "image");
    Frame frame;
    frame.width = image->width;
    frame.height = image->height;
    frame.format = static_cast<FrameFormat>(image->format);
    frame.colour = static_cast<YuvColour>(image->colour);
    frame.rotation_degrees = image->rotation_degrees;
    frame.is_mirrored = image->is_mirrored != 0;
    frame.crop_left = image->crop_left;
    frame.crop_top = image->crop_top;
    frame.crop_width = image->crop_width;
    frame.crop_height = image->crop_height;
    const bool has_pairs = image->format == EDGEVIT_NV12 || image->format == EDGEVIT_NV21;
    for (std::size_t i = 0; i < frame.planes.size(); ++i) {
        const edgevit_plane& plane = image->planes[i];
        const std::size_t usual = has_pairs && i == 1 ? 2 : 1;
        frame.planes[i] = {plane.data, plane.stride_bytes,
                           plane.pixel_stride_bytes == 0 ? usual : plane.pixel_stride_bytes};
    }
    return frame;
}

void describe(const TensorSpec& spec, edgevit_tensor* tensor) {
    require(tensor != nullptr, "the tensor is null");
    const std::size_t size = tensor->struct_size_bytes;
    check_struct_size(size, kFirstTensorBytes, sizeof *tensor, "tensor");
    edgevit_tensor known = {};
    known.struct_size_bytes = size;
    known.name = spec.name.c_str();
    known.rank = spec.shape.size();
    std::copy(spec.shape.begin(), spec.shape.end(), known.shape);
    known.element_count = spec.elements();
    known.size_bytes = spec.size_bytes();
    known.dtype = static_cast<edgevit_dtype>(spec.dtype);
    known.scale = spec.scale.value_or(0.0F);
    known.zero_point = spec.scale ? spec.zero_point : 0;
    std::memcpy(tensor, &known, size);
}

}  // namespace edgevit
