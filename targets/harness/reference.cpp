#include "reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/errors.h"
#include "core/sha256.h"
#include "safetensors.h"

namespace edgevit {
namespace {

std::vector<float> read_logits(const Safetensors& file, const std::string& name,
                               std::size_t classes, const std::string& where) {
    const StoredTensor& stored = file.get(name, "F32", 2, where);
    if (stored.shape[1] != static_cast<std::int64_t>(classes)) {
        throw InputError(where + ": '" + name + "' has " + std::to_string(stored.shape[1]) +
                         " classes, the artifact " + std::to_string(classes));
    }
    std::vector<float> logits(stored.bytes.size() / sizeof(float));
    std::memcpy(logits.data(), stored.bytes.data(), stored.bytes.size());
    if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) {
        throw InputError(where + ": '" + name + "' holds NaN or infinity");
    }
    return logits;
}

void read_paths(const Safetensors& file, const std::string& where, ReferenceLogits& result) {
    const Bytes& bytes = file.get("paths", "U8", 1, where).bytes;
    const std::string text(bytes.begin(), bytes.end());
    for (std::size_t start = 0; start < text.size();) {
        const std::size_t end = std::min(text.find('\n', start), text.size());
        result.rows.emplace(text.substr(start, end - start), result.rows.size());
        start = end + 1;
    }
    if (result.rows.size() * result.classes != result.logits.size()) {
        throw InputError(where + ": has " + std::to_string(result.logits.size() / result.classes) +
                         " rows of logits for " + std::to_string(result.rows.size()) +
                         " different paths");
    }
}

}  // namespace

const float* ReferenceLogits::find(const std::vector<float>& table, const std::string& path) const {
    const auto found = rows.find(path);
    return found == rows.end() ? nullptr : table.data() + found->second * classes;
}

ReferenceLogits load_reference(const std::filesystem::path& path, std::size_t classes) {
    const std::string where = path.string();
    const Safetensors file = read_safetensors(path);
    const auto version = file.metadata.find("schema_version");
    const auto dataset = file.metadata.find("dataset_sha256");
    if (version == file.metadata.end() || dataset == file.metadata.end()) {
        throw InputError(where + ": its metadata lack schema_version or dataset_sha256");
    }
    if (version->second != "1") {
        throw InputError(where + ": schema_version is " + version->second +
                         ", this program reads 1");
    }
    ReferenceLogits result;
    result.sha256 = sha256_file(path);
    result.dataset_sha256 = dataset->second;
    result.classes = classes;
    result.logits = read_logits(file, "logits", classes, where);
    read_paths(file, where, result);
    if (file.tensors.count("float_logits") != 0) {
        result.float_logits = read_logits(file, "float_logits", classes, where);
        if (result.float_logits->size() != result.logits.size()) {
            throw InputError(where + ": float_logits and logits differ in size");
        }
    }
    return result;
}

}  // namespace edgevit
