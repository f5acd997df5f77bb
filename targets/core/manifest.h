// manifest.json of an artifact folder: what the artifact is, its input and its outputs.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/preprocessing.h"
#include "core/tensor.h"

namespace edgevit {

enum class Layout { nhwc, nchw };

struct Reference {
    std::string file;
    std::string sha256;
    std::string dataset_sha256;
};

struct Manifest {
    std::filesystem::path folder;
    std::string target;
    std::string artifact_file;  // or the name of a folder, whose sha256 is that of sha256_tree()
    std::string artifact_sha256;
    std::string program_sha256;
    std::string profile;
    std::map<std::string, std::string> options;  // what `edgevit compile` was asked for
    std::string variant;
    int classes = 0;   // 0: the net has none
    TensorSpec input;  // [1, H, W, C], or [1, C, H, W] for Layout::nchw
    Layout layout = Layout::nhwc;
    std::vector<TensorSpec> outputs;      // one or more, of any rank, each with a name of its own
    std::string task = "classification";  // what the outputs mean
    bool ends_in_softmax = false;         // the net's own: its first output is probabilities
    // For each channel, what the input tensor holds for the pixel values 0 to 255:
    // 256 elements of input.dtype, in the machine's byte order.
    std::vector<Bytes> table;
    Preprocessing preprocessing;
    std::vector<std::string> labels;
    std::optional<Reference> reference;

    std::filesystem::path artifact_path() const { return folder / artifact_file; }
    // A classification's first output has one number a class: its shape is [1, classes].
    bool is_classification() const { return task == "classification"; }
    const TensorSpec& logits() const { return outputs.front(); }
    // A Core ML classifier answers with probabilities where its program has logits: they keep the
    // order alone.
    bool is_classifier() const {
        const auto found = options.find("output_type");
        return found != options.end() && found->second == "classifier";
    }
    // Of a classification's first output: nothing is left to turn into probabilities.
    bool answers_probabilities() const { return ends_in_softmax || is_classifier(); }
};

// Reads schema_version 1, whose one "output" is the only one of `outputs`, 2, and 3, which brought
// more pre-processing. Raises InputError
// naming `where` and the key for text that is not JSON, another kind, a newer schema_version, a
// missing key, a wrong type or a value out of range. Keys it does not know are left alone: what
// they would change, schema_version must announce.
Manifest parse_manifest(const std::string& text, const std::string& where);

// Reads FOLDER/manifest.json and checks that the artifact's sha256 is the manifest's.
// Raises InputError when the folder, the manifest or the artifact is missing or differs.
Manifest load_artifact(const std::filesystem::path& folder);

}  // namespace edgevit
