#include "buffers.h"

#import <CoreVideo/CoreVideo.h>

#include <cstring>
#include <optional>

#include "core/errors.h"
#include "guarded.h"
#include "packing.h"

namespace edgevit::coreml {
namespace {

class ImageBuffer : public InputBuffer {
  public:
    ImageBuffer(const TensorSpec& spec, Channels channels)
        : channels_(channels), width_(static_cast<std::size_t>(spec.shape[2])),
          height_(static_cast<std::size_t>(spec.shape[1])) {
        // Memory that the GPU and the Neural Engine read without a copy.
        NSDictionary* attributes =
            @{(__bridge NSString*)kCVPixelBufferIOSurfacePropertiesKey : @{}};
        const OSType format = channels == Channels::grey ? kCVPixelFormatType_OneComponent8
                                                         : kCVPixelFormatType_32BGRA;
        const CVReturn status = CVPixelBufferCreate(kCFAllocatorDefault, width_, height_, format,
                                                    (__bridge CFDictionaryRef)attributes, &pixels_);
        if (status != kCVReturnSuccess) {
            throw Error("CVPixelBufferCreate failed with " + std::to_string(status));
        }
    }
    ~ImageBuffer() override { CVPixelBufferRelease(pixels_); }

    void fill(ByteView pixels) override {
        const CVReturn status = CVPixelBufferLockBaseAddress(pixels_, 0);
        if (status != kCVReturnSuccess) {
            throw Error("CVPixelBufferLockBaseAddress failed with " + std::to_string(status));
        }
        auto* rows = static_cast<std::uint8_t*>(CVPixelBufferGetBaseAddress(pixels_));
        const bool copied = pack_rows(pixels, channels_, width_, height_,
                                      CVPixelBufferGetBytesPerRow(pixels_), rows);
        CVPixelBufferUnlockBaseAddress(pixels_, 0);
        if (!copied) {
            throw Error("the input has " + std::to_string(pixels.size) + " bytes, not those of " +
                        std::to_string(width_) + "x" + std::to_string(height_) + " pixels");
        }
    }

    MLFeatureValue* feature() const override {
        return [MLFeatureValue featureValueWithPixelBuffer:pixels_];
    }

  private:
    Channels channels_;
    std::size_t width_;
    std::size_t height_;
    CVPixelBufferRef pixels_ = nullptr;
};

// Of no axes, which spans nothing, when there are too many: this runs inside blocks, where it must
// not throw.
Extents extents_of(NSArray<NSNumber*>* shape, NSArray<NSNumber*>* strides) noexcept {
    Extents extents;
    if (shape.count > kMaxTensorRank || strides.count != shape.count) {
        return extents;
    }
    extents.rank = shape.count;
    for (NSUInteger axis = 0; axis < shape.count; ++axis) {
        extents.shape[axis] = shape[axis].longLongValue;
        extents.strides[axis] = strides[axis].longLongValue;
    }
    return extents;
}

class ArrayBuffer : public InputBuffer {
  public:
    explicit ArrayBuffer(const TensorSpec& spec) : packed_(spec.elements()) {
        NSMutableArray<NSNumber*>* shape = [NSMutableArray array];
        for (const std::int64_t side : spec.shape) {
            [shape addObject:[NSNumber numberWithLongLong:side]];
        }
        NSError* error = nil;
        array_ = [[MLMultiArray alloc] initWithShape:shape
                                            dataType:MLMultiArrayDataTypeFloat32
                                               error:&error];
        if (array_ == nil) {
            throw Error(failure("Core ML cannot make the input array", error));
        }
    }

    void fill(ByteView bytes) override {
        if (bytes.size != packed_.size() * sizeof(float)) {
            throw Error("the input has " + std::to_string(bytes.size) + " bytes, not " +
                        std::to_string(packed_.size() * sizeof(float)));
        }
        std::memcpy(packed_.data(), bytes.data, bytes.size);
        const float* packed = packed_.data();
        NSArray<NSNumber*>* shape = array_.shape;
        __block bool copied = false;
        [array_ getMutableBytesWithHandler:^(void* memory, NSInteger size,
                                             NSArray<NSNumber*>* strides) {
          copied =
              scatter(packed, extents_of(shape, strides), memory, static_cast<std::size_t>(size));
        }];
        if (!copied) {
            throw Error("the memory of Core ML's input array does not hold its shape and strides");
        }
    }

    MLFeatureValue* feature() const override {
        return [MLFeatureValue featureValueWithMultiArray:array_];
    }

  private:
    std::vector<float> packed_;  // the harness's bytes need not be aligned as floats
    MLMultiArray* array_ = nil;
};

std::optional<Element> element_of(MLMultiArray* array) {
    switch (array.dataType) {
        case MLMultiArrayDataTypeFloat16:
            return Element::float16;
        case MLMultiArrayDataTypeFloat32:
            return Element::float32;
        case MLMultiArrayDataTypeDouble:
            return Element::float64;
        default:
            return std::nullopt;
    }
}

}  // namespace

std::unique_ptr<InputBuffer> make_input_buffer(const TensorSpec& spec, Channels channels) {
    if (spec.dtype == DType::uint8) {
        return std::make_unique<ImageBuffer>(spec, channels);
    }
    return std::make_unique<ArrayBuffer>(spec);
}

void read_array(MLMultiArray* array, std::vector<float>& values) {
    const std::optional<Element> element = element_of(array);
    if (!element) {
        throw Error("Core ML's output array holds neither float16 nor float32 nor float64");
    }
    const Extents extents = extents_of(array.shape, array.strides);
    if (extents.elements() != values.size()) {
        throw Error("Core ML's output array has " + std::to_string(array.count) +
                    " elements, the manifest says " + std::to_string(values.size()));
    }
    const Element type = *element;
    float* out = values.data();
    __block bool copied = false;
    [array getBytesWithHandler:^(const void* memory, NSInteger size) {
      copied = gather(memory, static_cast<std::size_t>(size), type, extents, out);
    }];
    if (!copied) {
        throw Error("the memory of Core ML's output array does not hold its shape and strides");
    }
}

void read_probabilities(NSDictionary<id, NSNumber*>* probabilities,
                        const std::vector<std::string>& labels, std::vector<float>& values) {
    for (std::size_t i = 0; i < labels.size(); ++i) {
        NSNumber* probability = probabilities[ns_string(labels[i])];
        if (probability == nil) {
            throw Error("Core ML's answer has no class '" + labels[i] +
                        "': its classes are not those of the manifest");
        }
        values[i] = probability.floatValue;
    }
}

}  // namespace edgevit::coreml
