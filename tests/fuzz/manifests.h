// Sessions of the null back-end, one for each way to preprocess.
#pragma once

#include <memory>
#include <vector>

#include "session.h"

namespace edgevit {

inline Manifest null_manifest(int size, Resize mode, int target, Filter filter, DType dtype,
                              Layout layout) {
    Manifest manifest;
    manifest.target = "null";
    manifest.classes = 5;
    manifest.labels = {"a", "b", "c", "d", "e"};
    manifest.preprocessing.size = {size, size};
    manifest.preprocessing.resize = mode;
    manifest.preprocessing.target = {target, target};
    manifest.preprocessing.filter = filter;
    manifest.layout = layout;
    manifest.input.dtype = dtype;
    manifest.input.shape = layout == Layout::nhwc ? std::vector<std::int64_t>{1, size, size, 3}
                                                  : std::vector<std::int64_t>{1, 3, size, size};
    manifest.task = "classification";
    manifest.outputs = {{"logits", {1, 5}, DType::int8, 0.25F, 0}};
    manifest.table.assign(3, Bytes(256 * element_size_bytes(dtype), 1));
    return manifest;
}

inline std::vector<std::unique_ptr<Session>> null_sessions() {
    std::vector<std::unique_ptr<Session>> sessions;
    const auto add = [&](Manifest manifest) {
        sessions.push_back(std::make_unique<Session>(std::move(manifest), "", BackendOptions{}));
    };
    add(null_manifest(16, Resize::shorter, 18, Interpolation::bicubic, DType::int8, Layout::nhwc));
    add(null_manifest(9, Resize::shorter, 9, Interpolation::bilinear, DType::float32,
                      Layout::nchw));
    add(null_manifest(4, Resize::none, 0, Interpolation::bicubic, DType::float16, Layout::nhwc));
    add(null_manifest(7, Resize::fit, 7, {Interpolation::bicubic, false}, DType::uint8,
                      Layout::nhwc));
    add(null_manifest(5, Resize::exact, 6, Interpolation::area, DType::uint8, Layout::nchw));
    return sessions;
}

}  // namespace edgevit
