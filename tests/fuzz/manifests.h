// Sessions of the null back-end, one for each way to preprocess.
#pragma once

#include <memory>
#include <vector>

#include "session.h"

namespace edgevit {

inline Manifest null_manifest(int size, int resize, Interpolation interpolation, DType dtype,
                              Layout layout) {
    Manifest manifest;
    manifest.target = "null";
    manifest.classes = 5;
    manifest.labels = {"a", "b", "c", "d", "e"};
    manifest.preprocessing.image_size = size;
    if (resize != 0) {
        manifest.preprocessing.resize_size = resize;
    }
    manifest.preprocessing.interpolation = interpolation;
    manifest.layout = layout;
    manifest.input.dtype = dtype;
    manifest.input.shape = layout == Layout::nhwc ? std::vector<std::int64_t>{1, size, size, 3}
                                                  : std::vector<std::int64_t>{1, 3, size, size};
    manifest.task = "classification";
    manifest.outputs = {{"logits", {1, 5}, DType::int8, 0.25F, 0}};
    manifest.table.fill(Bytes(256 * element_size_bytes(dtype), 1));
    return manifest;
}

inline std::vector<std::unique_ptr<Session>> null_sessions() {
    std::vector<std::unique_ptr<Session>> sessions;
    const auto add = [&](Manifest manifest) {
        sessions.push_back(std::make_unique<Session>(std::move(manifest), "", BackendOptions{}));
    };
    add(null_manifest(16, 18, Interpolation::bicubic, DType::int8, Layout::nhwc));
    add(null_manifest(9, 9, Interpolation::bilinear, DType::float32, Layout::nchw));
    add(null_manifest(4, 0, Interpolation::bicubic, DType::float16, Layout::nhwc));
    return sessions;
}

}  // namespace edgevit
