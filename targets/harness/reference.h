// The logits of the quantized program (and of the float net), which an artifact is held against.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace edgevit {

struct ReferenceLogits {
    std::string sha256;
    std::string dataset_sha256;
    std::size_t classes = 0;
    std::unordered_map<std::string, std::size_t> rows;  // image path -> row
    std::vector<float> logits;                          // rows x classes
    std::optional<std::vector<float>> float_logits;     // rows x classes

    // The row of logits for an image, or null.
    const float* find(const std::vector<float>& table, const std::string& path) const;
};

// Reads "logits" F32 [N, C], "paths" U8 (newline-joined) and, where present, "float_logits".
// Raises InputError for a file that is not that, or is for another number of classes.
ReferenceLogits load_reference(const std::filesystem::path& path, std::size_t classes);

}  // namespace edgevit
