#include "core/manifest.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/errors.h"
#include "core/half.h"
#include "core/json_reader.h"
#include "core/limits.h"
#include "core/read_preprocessing.h"
#include "core/sha256.h"

namespace edgevit {
namespace {

constexpr auto kMostElements = static_cast<std::uint64_t>(kMaxTensorElements);

std::string plain_file_name(const JsonReader& reader, const std::string& key) {
    std::string name = reader.text(key);
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
        reader.fail(key, "must be the name of a file in the artifact folder");
    }
    return name;
}

std::string sha256_text(const JsonReader& reader, const std::string& key) {
    std::string digest = reader.text(key);
    if (!is_sha256(digest)) {
        reader.fail(key, "must be 64 lower-case hexadecimal digits");
    }
    return digest;
}

DType read_dtype(const JsonReader& reader) {
    const std::string name = reader.text("dtype");
    const std::optional<DType> dtype = dtype_from_name(name);
    if (!dtype) {
        reader.fail("dtype", "is '" + name + "', known are int8, uint8, float16, float32");
    }
    return *dtype;
}

void read_quantization(const JsonReader& reader, TensorSpec& spec) {
    const bool is_plain = reader.is_null("scale") && reader.is_null("zero_point");
    if (is_float(spec.dtype) && !is_plain) {
        reader.fail("scale", "and zero_point must be null for floats");
    }
    if (is_plain && spec.dtype != DType::int8) {
        return;
    }
    // The manifest's number is the double of a float32; rounding back is exact.
    const auto scale = static_cast<float>(reader.number(reader.at("scale"), "scale"));
    if (!(scale >= std::numeric_limits<float>::min() && std::isfinite(scale))) {
        reader.fail("scale", "must be a positive float32");
    }
    spec.scale = scale;
    const bool is_signed = spec.dtype == DType::int8;
    spec.zero_point =
        static_cast<int>(reader.integer("zero_point", is_signed ? -128 : 0, is_signed ? 127 : 255));
}

TensorSpec read_tensor(const JsonReader& reader) {
    TensorSpec spec;
    spec.name = reader.text("name");
    if (spec.name.empty()) {
        reader.fail("name", "must not be empty");
    }
    spec.dtype = read_dtype(reader);
    std::uint64_t elements = 1;
    for (const nlohmann::json& side : reader.array("shape", 1, kMaxTensorRank)) {
        spec.shape.push_back(reader.integer(side, "shape", 1, kMaxTensorElements));
        elements *= static_cast<std::uint64_t>(spec.shape.back());
        if (elements > kMostElements) {
            reader.fail("shape", "has over " + std::to_string(kMaxTensorElements) + " elements");
        }
    }
    if (spec.shape.front() != 1) {
        reader.fail("shape", "must start with 1: one image at a time");
    }
    read_quantization(reader, spec);
    return spec;
}

// A half is looked for that is the number exactly: a table of other numbers was not made for one.
std::uint16_t read_half(const JsonReader& reader, const nlohmann::json& value) {
    const double real = reader.number(value, "table");
    const std::uint16_t half = float_to_half(static_cast<float>(real));
    if (static_cast<double>(half_to_float(half)) != real) {
        reader.fail("table", "holds " + value.dump() + ", which is no float16");
    }
    return half;
}

Bytes read_channel_table(const JsonReader& reader, const nlohmann::json& channel, DType dtype) {
    if (!channel.is_array() || channel.size() != 256) {
        reader.fail("table", "must be arrays of 256");
    }
    Bytes table(256 * element_size_bytes(dtype));
    for (std::size_t pixel = 0; pixel < 256; ++pixel) {
        const nlohmann::json& value = channel[pixel];
        if (dtype == DType::float16) {
            const std::uint16_t half = read_half(reader, value);
            std::memcpy(table.data() + 2 * pixel, &half, sizeof half);
        } else if (dtype == DType::float32) {
            const auto real = static_cast<float>(reader.number(value, "table"));
            if (!std::isfinite(real)) {
                reader.fail("table", "holds a number that no float32 can hold");
            }
            std::memcpy(table.data() + 4 * pixel, &real, 4);
        } else {
            const bool is_signed = dtype == DType::int8;
            const std::int64_t stored =
                reader.integer(value, "table", is_signed ? -128 : 0, is_signed ? 127 : 255);
            table[pixel] = static_cast<std::uint8_t>(stored);
        }
    }
    return table;
}

Layout read_layout(const JsonReader& reader) {
    const std::string name = reader.text("layout");
    if (name != "NHWC" && name != "NCHW") {
        reader.fail("layout", "is '" + name + "', known are NHWC, NCHW");
    }
    return name == "NHWC" ? Layout::nhwc : Layout::nchw;
}

void read_input(const JsonReader& reader, Manifest& manifest) {
    manifest.input = read_tensor(reader);
    manifest.layout = read_layout(reader);
    const Preprocessing& rules = manifest.preprocessing;
    const int channels = channel_count(rules.channels);
    const auto [width, height] = rules.size;
    using Shape = std::vector<std::int64_t>;
    const Shape wanted = manifest.layout == Layout::nhwc ? Shape{1, height, width, channels}
                                                         : Shape{1, channels, height, width};
    if (manifest.input.shape != wanted) {
        reader.fail("shape", "must be " + nlohmann::json(wanted).dump() +
                                 ", as preprocessing makes it for this layout");
    }
    for (const nlohmann::json& row : reader.array("table", static_cast<std::size_t>(channels))) {
        manifest.table.push_back(read_channel_table(reader, row, manifest.input.dtype));
    }
}

// What the numbers of an output are; manifests without it were written for logits.
std::string read_meaning(const JsonReader& output) {
    if (!output.has("meaning")) {
        return "logits";
    }
    std::string meaning = output.text("meaning");
    if (meaning != "logits" && meaning != "probabilities") {
        output.fail("meaning", "is '" + meaning + "', known are logits, probabilities");
    }
    return meaning;
}

// Of version 1 the one output.
void read_outputs(const JsonReader& root, std::int64_t version, Manifest& manifest) {
    const std::vector<JsonReader> readers = version == 1
                                                ? std::vector<JsonReader>{root.object("output")}
                                                : root.objects("outputs", 1, kMaxOutputs);
    std::set<std::string> names;
    for (const JsonReader& reader : readers) {
        manifest.outputs.push_back(read_tensor(reader));
        if (const std::string& name = manifest.outputs.back().name; !names.insert(name).second) {
            reader.fail("name", "'" + name + "' is given twice");
        }
    }
    manifest.ends_in_softmax = read_meaning(readers.front()) == "probabilities";
    using Shape = std::vector<std::int64_t>;
    if (manifest.is_classification() && manifest.logits().shape != Shape{1, manifest.classes}) {
        readers.front().fail("shape", "must be [1, model.classes]");
    }
}

void read_labels(const JsonReader& reader, Manifest& manifest) {
    const nlohmann::json& labels =
        reader.array("labels", static_cast<std::size_t>(manifest.classes));
    for (const nlohmann::json& label : labels) {
        if (!label.is_string()) {
            reader.fail("labels", "must be strings");
        }
        const auto& text = label.get_ref<const std::string&>();
        if (text.empty() || text.size() > kMaxLabelBytes) {
            reader.fail("labels", "must be of 1 to " + std::to_string(kMaxLabelBytes) + " bytes");
        }
        if (text.find('\0') != std::string::npos) {
            reader.fail("labels", "must hold no zero byte, which ends a text in C");
        }
        manifest.labels.push_back(text);
    }
    std::set<std::string> seen;
    for (const std::string& label : manifest.labels) {
        if (!seen.insert(label).second) {
            reader.fail("labels", "names '" + label + "' twice");
        }
    }
}

void read_reference(const JsonReader& root, Manifest& manifest) {
    if (root.is_null("reference")) {
        return;
    }
    const JsonReader reader = root.object("reference");
    manifest.reference = Reference{plain_file_name(reader, "file"), sha256_text(reader, "sha256"),
                                   sha256_text(reader, "dataset_sha256")};
}

// A folder that was looked into may have gained files since, and they count.
void check_sha256(const Manifest& manifest) {
    const std::filesystem::path path = manifest.artifact_path();
    const bool is_folder = std::filesystem::is_directory(path);
    const std::string actual = is_folder ? sha256_tree(path) : sha256_file(path);
    if (actual != manifest.artifact_sha256) {
        throw InputError(path.string() + ": its sha256 is " + actual + ", the manifest says " +
                         manifest.artifact_sha256 +
                         ": the artifact is corrupt or not the one that was compiled" +
                         (is_folder ? " (files added later count too, such as .DS_Store)" : ""));
    }
}

std::int64_t read_version(const JsonReader& root) {
    if (const std::string kind = root.text("kind"); kind != "edgevit-artifact") {
        root.fail("kind", "is '" + kind + "', expected 'edgevit-artifact'");
    }
    const std::int64_t version =
        root.integer("schema_version", 1, std::numeric_limits<std::int64_t>::max());
    if (version > kManifestSchemaVersion) {
        root.fail("schema_version",
                  "is " + std::to_string(version) + ", this program reads up to " +
                      std::to_string(kManifestSchemaVersion) + ": update edgevit");
    }
    return version;
}

}  // namespace

Manifest parse_manifest(const std::string& text, const std::string& where) {
    nlohmann::json document;
    try {
        document = nlohmann::json::parse(text);
    } catch (const nlohmann::json::exception& error) {
        throw InputError(where + ": not valid JSON: " + error.what());
    }
    const JsonReader root(document, where);
    const std::int64_t version = read_version(root);
    Manifest manifest;
    manifest.target = root.text("target");
    manifest.artifact_file = plain_file_name(root.object("artifact"), "file");
    manifest.artifact_sha256 = sha256_text(root.object("artifact"), "sha256");
    manifest.program_sha256 = sha256_text(root.object("program"), "sha256");
    manifest.profile = root.text("profile");
    manifest.options = root.texts("options");
    manifest.variant = root.object("model").text("variant");
    manifest.task = version == 1 ? "classification" : root.text("task");
    const int least_classes = manifest.is_classification() ? 1 : 0;
    manifest.classes =
        static_cast<int>(root.object("model").integer("classes", least_classes, kMaxClasses));
    manifest.preprocessing = read_preprocessing(root.object("preprocessing"), version);
    read_input(root.object("input"), manifest);
    read_outputs(root, version, manifest);
    read_labels(root, manifest);
    read_reference(root, manifest);
    return manifest;
}

Manifest load_artifact(const std::filesystem::path& folder) {
    if (!std::filesystem::is_directory(folder)) {
        throw InputError(folder.string() +
                         ": no such artifact folder; `edgevit compile` writes one");
    }
    const std::filesystem::path path = folder / "manifest.json";
    const Bytes bytes = read_file(path, kMaxManifestBytes);
    Manifest manifest = parse_manifest(std::string(bytes.begin(), bytes.end()), path.string());
    manifest.folder = folder;
    check_sha256(manifest);
    return manifest;
}

}  // namespace edgevit
