// Between the structures of the C API and those of C++. Each raises CallError for a mistake of the
// caller and InputError for a value that cannot be used.
#pragma once

#include "backend.h"
#include "core/errors.h"
#include "core/frame.h"
#include "core/tensor.h"
#include "edgevit/edgevit.h"

namespace edgevit {

inline void require(bool condition, const char* message) {
    if (!condition) {
        throw CallError(message);
    }
}

// The caller's options, and defaults for fields that its header does not have. `options` may be
// null.
edgevit_options known_options(const edgevit_options* options);

BackendOptions backend_options(const edgevit_options& given);

Frame frame_of(const edgevit_image* image);

// Fills `tensor`; its name is that of `spec`, which must outlive it.
void describe(const TensorSpec& spec, edgevit_tensor* tensor);

}  // namespace edgevit
