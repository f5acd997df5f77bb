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

// The sizes that edgevit_options has had: a caller that was built with an older header passes less.
constexpr std::size_t kOptionsSizes[] = {offsetof(edgevit_options, runtime_options),
                                         sizeof(edgevit_options)};
constexpr std::size_t kMaxRuntimeOptions = 256;

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
    for (const auto& [name, value] : {std::pair("compute_units", given.compute_units),
                                      std::pair("plan_cache", given.plan_cache)}) {
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
        require(std::find(std::begin(kOptionsSizes), std::end(kOptionsSizes), size) !=
                    std::end(kOptionsSizes),
                "options.struct_size_bytes is not of this library or an older one: call "
                "edgevit_options_init() and load a library as new as the header");
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
    return options;
}

Pixels pixels_of(const edgevit_image* image) {
    require(image != nullptr, "the image is null");
    return {image->pixels, image->width, image->height, image->stride_bytes,
            static_cast<PixelFormat>(image->format)};
}

void describe(const TensorSpec& spec, edgevit_tensor* tensor) {
    require(tensor != nullptr, "the tensor is null");
    require(tensor->struct_size_bytes == sizeof *tensor,
            "tensor.struct_size_bytes is not of this library or an older one: set it to "
            "sizeof(edgevit_tensor) and load a library as new as the header");
    edgevit_tensor known = {};
    known.struct_size_bytes = sizeof known;
    known.name = spec.name.c_str();
    known.rank = spec.shape.size();
    std::copy(spec.shape.begin(), spec.shape.end(), known.shape);
    known.element_count = spec.elements();
    known.size_bytes = spec.size_bytes();
    known.dtype = static_cast<edgevit_dtype>(spec.dtype);
    known.scale = spec.scale.value_or(0.0F);
    known.zero_point = spec.scale ? spec.zero_point : 0;
    *tensor = known;
}

}  // namespace edgevit
