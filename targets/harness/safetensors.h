// Reading and writing .safetensors: an 8-byte little-endian header length, a JSON header that
// names each tensor's dtype, shape and byte range, then the bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/bytes.h"

namespace edgevit {

struct StoredTensor {
    std::string dtype;  // "F32", "I64", "U8", ...
    std::vector<std::int64_t> shape;
    Bytes bytes;
};

struct Safetensors {
    std::map<std::string, StoredTensor> tensors;
    std::map<std::string, std::string> metadata;

    // Raises InputError naming `where` when the tensor is missing, or has another dtype or rank.
    const StoredTensor& get(const std::string& name, const std::string& dtype, std::size_t rank,
                            const std::string& where) const;
};

// Raises InputError for a file that is not safetensors, is cut short, or whose ranges overlap,
// leave gaps or do not fit their shapes.
Safetensors read_safetensors(const std::filesystem::path& path);

// A tensor to be written: its bytes come later, in the order of the declarations.
struct TensorDeclaration {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
};

// Writes the header at once and the bytes as they come, so that no data set has to fit in memory.
// The file appears under its name on commit().
class SafetensorsWriter {
  public:
    SafetensorsWriter(const std::filesystem::path& path,
                      const std::vector<TensorDeclaration>& tensors,
                      const std::map<std::string, std::string>& metadata);

    void append(const void* data, std::size_t size_bytes);

    // For a run that ended early: the same tensors, none larger than declared before.
    void redeclare(const std::vector<TensorDeclaration>& tensors);

    // Raises Error when the bytes do not add up to the declarations.
    void commit();

  private:
    std::string header_text(const std::vector<TensorDeclaration>& tensors);

    AtomicFile file_;
    std::map<std::string, std::string> metadata_;
    std::size_t header_bytes_ = 0;
    std::uint64_t expected_bytes_ = 0;
    std::uint64_t written_bytes_ = 0;
};

}  // namespace edgevit
