// The Core ML back-end: runs a model.mlpackage on a Mac, an iPhone or an iPad through MLModel.
#include "backend.h"

#import <CoreML/CoreML.h>
#import <CoreVideo/CoreVideo.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "buffers.h"
#include "compute_plan.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "guarded.h"

namespace edgevit::coreml {
namespace {

namespace fs = std::filesystem;

NSURL* folder_url(const fs::path& path) {
    return [NSURL fileURLWithPath:ns_string(path.string()) isDirectory:YES];
}

// A .mlmodelc: compiled here from the artifact and removed at the end, or one that the user named.
// A .mlmodelc beside the artifact is never looked at: the manifest says nothing about it.
class CompiledModel {
  public:
    CompiledModel(const Manifest& manifest, const fs::path& compiled_before)
        : is_temporary_(compiled_before.empty()) {
        if (manifest.artifact_path().extension() != ".mlpackage") {
            throw InputError(manifest.artifact_path().string() +
                             ": the coreml back-end runs a .mlpackage");
        }
        if (is_temporary_) {
            compile(manifest.artifact_path());
            return;
        }
        if (compiled_before.extension() != ".mlmodelc" || !fs::is_directory(compiled_before)) {
            throw InputError(compiled_before.string() +
                             ": --runtime names a compiled model for Core ML, a .mlmodelc folder");
        }
        guarded("naming the compiled model", [&] { url_ = folder_url(compiled_before); });
    }
    CompiledModel(const CompiledModel&) = delete;
    CompiledModel& operator=(const CompiledModel&) = delete;
    ~CompiledModel() {
        if (is_temporary_) {
            @autoreleasepool {
                [[NSFileManager defaultManager] removeItemAtURL:url_ error:nil];
            }
        }
    }

    NSURL* url() const { return url_; }

  private:
    void compile(const fs::path& package) {
        guarded("compiling the model", [&] {
            NSError* error = nil;
            // The call that replaces it raises its exceptions on another thread, where guarded()
            // cannot catch them.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
            url_ = [MLModel compileModelAtURL:folder_url(package) error:&error];
#pragma clang diagnostic pop
            if (url_ == nil) {
                throw InputError(
                    failure(package.string() + ": Core ML does not compile it", error));
            }
        });
    }

    bool is_temporary_;
    NSURL* url_ = nil;
};

// The values of the runtime option compute_units.
const std::map<std::string, MLComputeUnits>& compute_units() {
    static const std::map<std::string, MLComputeUnits> units = {
        {"all", MLComputeUnitsAll},
        {"cpu", MLComputeUnitsCPUOnly},
        {"cpu-gpu", MLComputeUnitsCPUAndGPU},
        {"cpu-ane", MLComputeUnitsCPUAndNeuralEngine}};
    return units;
}

RuntimeOption compute_units_option() {
    RuntimeOption option = {"compute_units", "the parts of the chip to use (default all)"};
    for (const auto& [name, units] : compute_units()) {
        option.values.push_back(name);
    }
    return option;
}

std::vector<std::int64_t> shape_of(MLMultiArrayConstraint* constraint) {
    std::vector<std::int64_t> shape;
    for (NSNumber* side in constraint.shape) {
        shape.push_back(side.longLongValue);
    }
    return shape;
}

// A feature as the manifest would describe it. Core ML states no scale, so that is the manifest's.
TensorSpec describe_input(MLFeatureDescription* feature, const TensorSpec& expected) {
    TensorSpec spec = expected;
    spec.name = text(feature.name);
    const OSType format =
        feature.type == MLFeatureTypeImage ? feature.imageConstraint.pixelFormatType : 0;
    if (format == kCVPixelFormatType_32BGRA || format == kCVPixelFormatType_OneComponent8) {
        spec.dtype = DType::uint8;
        spec.shape = {1, feature.imageConstraint.pixelsHigh, feature.imageConstraint.pixelsWide,
                      format == kCVPixelFormatType_32BGRA ? 3 : 1};
        return spec;
    }
    if (feature.type == MLFeatureTypeMultiArray &&
        feature.multiArrayConstraint.dataType == MLMultiArrayDataTypeFloat32) {
        spec.dtype = DType::float32;
        spec.shape = shape_of(feature.multiArrayConstraint);
        return spec;
    }
    throw InputError("the model's input '" + spec.name +
                     "' is neither an image nor an array of float32");
}

TensorSpec describe_output(MLFeatureDescription* feature, const TensorSpec& expected) {
    TensorSpec spec = expected;
    spec.name = text(feature.name);
    spec.dtype = DType::float32;  // float16 and float64 are converted
    if (feature.type == MLFeatureTypeMultiArray && feature.multiArrayConstraint.shape.count > 0) {
        spec.shape = shape_of(feature.multiArrayConstraint);
    }  // else only the answer tells its size, and read_array() compares it
    return spec;
}

std::string names_of(NSDictionary<NSString*, MLFeatureDescription*>* features) {
    std::vector<std::string> names;
    for (NSString* name in features) {
        names.push_back("'" + text(name) + "'");
    }
    std::sort(names.begin(), names.end());
    std::string joined;
    for (const std::string& name : names) {
        joined += (joined.empty() ? "" : ", ") + name;
    }
    return joined;
}

MLFeatureDescription* feature_named(NSDictionary<NSString*, MLFeatureDescription*>* features,
                                    const std::string& name, const char* role) {
    MLFeatureDescription* feature = features[ns_string(name)];
    if (feature == nil) {
        throw InputError("the model has no " + std::string(role) + " '" + name +
                         "' as the manifest says; it has " + names_of(features));
    }
    return feature;
}

class CoreMlBackend : public Backend {
  public:
    CoreMlBackend(const Manifest& manifest, const BackendOptions& options)
        : manifest_(manifest), compiled_before_(options.runtime_library),
          units_(runtime_option(options.runtime_options, "compute_units", "all")),
          compiled_(manifest, compiled_before_) {
        guarded("loading the model", [this] { load(); });
        match_tensors(*this, manifest);
        guarded("making the input buffer", [this] {
            buffer_ = make_input_buffer(manifest_.input, manifest_.preprocessing.channels);
        });
    }

    std::vector<TensorSpec> inputs() const override { return inputs_; }
    std::vector<TensorSpec> outputs() const override { return outputs_; }

    void set_input(ByteView bytes) override {
        guarded("filling the input", [&] {
            answer_ = nil;
            buffer_->fill(bytes);
            // Made anew each time: a feature value may have looked at what it was made from.
            NSError* error = nil;
            NSDictionary* features = @{ns_string(manifest_.input.name) : buffer_->feature()};
            features_ = [[MLDictionaryFeatureProvider alloc] initWithDictionary:features
                                                                          error:&error];
            if (features_ == nil) {
                throw Error(failure("Core ML does not take the input", error));
            }
        });
    }

    void invoke() override {
        guarded("predicting", [this] {
            NSError* error = nil;
            answer_ = [model_ predictionFromFeatures:features_ options:options_ error:&error];
            if (answer_ == nil) {
                throw Error(failure("Core ML cannot predict", error));
            }
        });
    }

    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) override {
        std::vector<float>& values = values_.at(index);
        if (size_bytes != values.size() * sizeof(float)) {
            throw Error("Core ML: get_output() of another size than the manifest's");
        }
        guarded("reading the output", [&] { read_answer(manifest_.outputs[index].name, values); });
        std::memcpy(out, values.data(), size_bytes);
    }

    std::string accelerator() const override { return units_; }

    RuntimeFacts facts() const override {
        RuntimeFacts facts;
        facts.name = "Core ML";
        guarded("asking for the version", [&] {
            facts.version = text([NSProcessInfo processInfo].operatingSystemVersionString);
        });
        if (!compiled_before_.empty()) {
            facts.library_file = compiled_before_.filename().string();
            facts.library_sha256 = sha256_tree(compiled_before_);
        }
        facts.accelerator_requested = units_;
        return facts;
    }

    // A plan, not a run: Core ML times no single operation.
    OpReport profile(ByteView, int) override {
        return planned_placement(compiled_.url(), configuration_);
    }

  private:
    void load() {
        configuration_ = [[MLModelConfiguration alloc] init];
        configuration_.computeUnits = compute_units().at(units_);
        NSError* error = nil;
        model_ = [MLModel modelWithContentsOfURL:compiled_.url()
                                   configuration:configuration_
                                           error:&error];
        if (model_ == nil) {
            const fs::path loaded =
                compiled_before_.empty() ? manifest_.artifact_path() : compiled_before_;
            throw InputError(failure(loaded.string() + ": Core ML does not load it", error));
        }
        options_ = [[MLPredictionOptions alloc] init];
        describe(model_.modelDescription);
    }

    void describe(MLModelDescription* description) {
        for (MLFeatureDescription* input in description.inputDescriptionsByName.allValues) {
            inputs_.push_back(describe_input(input, manifest_.input));
        }
        feature_named(description.inputDescriptionsByName, manifest_.input.name, "input");
        describe_outputs(description.outputDescriptionsByName);
    }

    // The manifest's, in its order, then what the model has beyond them.
    void describe_outputs(NSDictionary<NSString*, MLFeatureDescription*>* features) {
        std::set<std::string> known;
        for (const TensorSpec& expected : manifest_.outputs) {
            MLFeatureDescription* output = feature_named(features, expected.name, "output");
            const bool is_dictionary = output.type == MLFeatureTypeDictionary;
            if (!is_dictionary && output.type != MLFeatureTypeMultiArray) {
                throw InputError("the model's output '" + expected.name +
                                 "' is neither an array nor a dictionary of probabilities");
            }
            is_classifier_ = is_classifier_ || is_dictionary;
            outputs_.push_back(describe_output(output, expected));
            values_.emplace_back(expected.elements());
            known.insert(expected.name);
        }
        for (MLFeatureDescription* each in features.allValues) {
            // A classifier also answers with the label alone, which says nothing more.
            if (!is_classifier_ && known.count(text(each.name)) == 0) {
                outputs_.push_back(describe_output(each, {}));
            }
        }
    }

    void read_answer(const std::string& name, std::vector<float>& values) {
        MLFeatureValue* value = [answer_ featureValueForName:ns_string(name)];
        if (value == nil || value.isUndefined) {
            throw Error("Core ML gave no output '" + name + "'");
        }
        if (value.multiArrayValue != nil) {
            read_array(value.multiArrayValue, values);
        } else if (is_classifier_) {
            read_probabilities(value.dictionaryValue, manifest_.labels, values);
        } else {
            throw Error("Core ML's output '" + name + "' is no array");
        }
    }

    Manifest manifest_;
    fs::path compiled_before_;  // empty: compiled here
    std::string units_;
    bool is_classifier_ = false;
    CompiledModel compiled_;
    std::vector<TensorSpec> inputs_;
    std::vector<TensorSpec> outputs_;
    std::vector<std::vector<float>> values_;  // of the manifest's outputs
    MLModelConfiguration* configuration_ = nil;
    MLModel* model_ = nil;
    MLPredictionOptions* options_ = nil;
    std::unique_ptr<InputBuffer> buffer_;
    MLDictionaryFeatureProvider* features_ = nil;
    id<MLFeatureProvider> answer_ = nil;
};

std::unique_ptr<Backend> open_coreml(const Manifest& manifest, const BackendOptions& options) {
    if (options.threads != 1) {
        throw InputError("Core ML chooses its own threads: leave --threads out");
    }
    return std::make_unique<CoreMlBackend>(manifest, options);
}

[[maybe_unused]] const bool registered =
    register_backend("coreml", open_coreml, {compute_units_option()});

}  // namespace
}  // namespace edgevit::coreml
