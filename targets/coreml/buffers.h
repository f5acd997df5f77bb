// The memory that goes into a prediction and what comes out of it. Objective-C++.
#pragma once

#import <CoreML/CoreML.h>

#include <memory>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/preprocessing.h"
#include "core/tensor.h"

namespace edgevit::coreml {

// One input, allocated once and filled again for each frame.
class InputBuffer {
  public:
    InputBuffer() = default;
    InputBuffer(const InputBuffer&) = delete;
    InputBuffer& operator=(const InputBuffer&) = delete;
    virtual ~InputBuffer() = default;

    // Copies a whole input tensor. Raises Error when the size is another.
    virtual void fill(ByteView bytes) = 0;

    virtual MLFeatureValue* feature() const = 0;
};

// A CVPixelBuffer for a uint8 input [1, H, W, 3 or 1], an MLMultiArray for a float32 one.
std::unique_ptr<InputBuffer> make_input_buffer(const TensorSpec& spec, Channels channels);

// Copies an array of float16, float32 or float64, of any strides, to `values`. Raises Error when it
// has another number of elements or another type.
void read_array(MLMultiArray* array, std::vector<float>& values);

// Copies a classifier's probabilities in the order of `labels`. Raises Error naming a label that
// is not among them.
void read_probabilities(NSDictionary<id, NSNumber*>* probabilities,
                        const std::vector<std::string>& labels, std::vector<float>& values);

}  // namespace edgevit::coreml
