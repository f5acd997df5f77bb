// What the tests share: a folder that goes away, files, a tar, a manifest, and the goldens.
#pragma once

#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/sha256.h"
#include "safetensors.h"

namespace edgevit::test {

namespace fs = std::filesystem;
using nlohmann::json;

class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string name = (fs::temp_directory_path() / "edgevit-test-XXXXXX").string();
        path_ = ::mkdtemp(name.data());
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() { fs::remove_all(path_); }

    fs::path operator/(const std::string& name) const { return path_ / name; }
    const fs::path& path() const { return path_; }

  private:
    fs::path path_;
};

inline fs::path write_text(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
}

inline std::string read_text(const fs::path& path) {
    const Bytes bytes = read_file(path, 1ULL << 30);
    return {bytes.begin(), bytes.end()};
}

inline const Safetensors& goldens() {
    static const Safetensors file = read_safetensors(EDGEVIT_TEST_DATA "/goldens.safetensors");
    return file;
}

inline std::string golden_text(const std::string& name) {
    const Bytes& bytes = goldens().tensors.at(name).bytes;
    return {bytes.begin(), bytes.end()};
}

// The names of goldens that start with `prefix`, without it.
inline std::vector<std::string> golden_names(const std::string& prefix) {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : goldens().tensors) {
        if (name.compare(0, prefix.size(), prefix) == 0) {
            names.push_back(name.substr(prefix.size()));
        }
    }
    return names;
}

// The message of the E that `action` throws, or "" when it throws none.
template <typename E>
std::string message_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const E& error) { return error.what(); }
    return "";
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// A header and the data of one tar member, padded.
inline std::string tar_member(const std::string& name, const std::string& data, char type = '0') {
    std::string header(512, '\0');
    const auto put = [&](std::size_t at, const std::string& text) {
        header.replace(at, text.size(), text);
    };
    char octal[13];
    std::snprintf(octal, sizeof octal, "%011zo", data.size());
    put(0, name.substr(0, 100));
    put(100, "0000644");
    put(124, octal);
    header[156] = type;
    put(257, "ustar");
    put(263, "00");
    put(148, "        ");
    unsigned sum = 0;
    for (const char c : header) {
        sum += static_cast<unsigned char>(c);
    }
    std::snprintf(octal, sizeof octal, "%06o", sum);
    header.replace(148, 7, std::string(octal, 7));
    return header + data + std::string((512 - data.size() % 512) % 512, '\0');
}

inline std::string tar_end() { return std::string(1024, '\0'); }

// One of the golden manifests, which the Python tests read too.
inline std::string golden_manifest(const std::string& file) {
    return read_text(EDGEVIT_TEST_DATA "/../../manifests/" + file);
}

// A manifest for `classes` classes c0, c1, ... and an 8x8 uint8 input that is the pixels
// themselves.
inline json manifest_json(int classes, const std::string& artifact = "artifact") {
    json manifest = json::parse(golden_manifest("good-null.json"));
    json labels = json::array();
    for (int i = 0; i < classes; ++i) {
        labels.push_back("c" + std::to_string(i));
    }
    manifest["artifact"]["sha256"] = sha256_hex(artifact);
    manifest["model"]["classes"] = classes;
    manifest["outputs"][0]["shape"] = {1, classes};
    manifest["labels"] = labels;
    return manifest;
}

// The same as schema version 2, with these outputs: {name, shape, dtype, scale, zero_point} each.
inline json with_outputs(json manifest, const std::vector<json>& outputs) {
    manifest.erase("output");
    manifest["schema_version"] = 2;
    manifest["task"] = "classification";
    manifest["outputs"] = outputs;
    return manifest;
}

inline json output_json(const std::string& name, const std::vector<std::int64_t>& shape,
                        const std::string& dtype, const json& scale = nullptr,
                        const json& zero_point = nullptr) {
    return {{"name", name},
            {"shape", shape},
            {"dtype", dtype},
            {"scale", scale},
            {"zero_point", zero_point}};
}

inline void write_artifact(const fs::path& folder, const json& manifest,
                           const std::string& artifact = "artifact") {
    write_text(folder / "model.bin", artifact);
    write_text(folder / "manifest.json", manifest.dump());
}

// Of data/tiny.tflite.
inline json tiny_manifest() {
    const std::string model = read_text(EDGEVIT_TEST_DATA "/tiny.tflite");
    json manifest = manifest_json(4, model);
    manifest["target"] = "tflite";
    manifest["input"]["dtype"] = "int8";
    manifest["input"]["scale"] = 0.0078125;
    manifest["input"]["zero_point"] = 0;
    manifest["outputs"][0]["scale"] = 0.00390625;
    manifest["outputs"][0]["zero_point"] = 0;
    for (int channel = 0; channel < 3; ++channel) {
        for (int pixel = 0; pixel < 256; ++pixel) {
            manifest["input"]["table"][static_cast<std::size_t>(channel)]
                    [static_cast<std::size_t>(pixel)] = pixel - 128;
        }
    }
    return manifest;
}

// Three images of the goldens in the class folders c0, c1 and c2.
inline fs::path write_images(const fs::path& folder) {
    write_text(folder / "c0" / "a.jpg", golden_text("decode/jpeg-420/file"));
    write_text(folder / "c1" / "b.png", golden_text("decode/png-rgb/file"));
    write_text(folder / "c2" / "c.JPEG", golden_text("decode/jpeg-grey/file"));
    return folder;
}

}  // namespace edgevit::test
