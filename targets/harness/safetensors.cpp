#include "safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/json_reader.h"
#include "core/limits.h"

namespace edgevit {
namespace {

using nlohmann::json;

constexpr long kLengthBytes = 8;                        // of the number before the header
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::int64_t kMaxSide = 1LL << 40;

// Bytes an element, 0 for a dtype that is not known.
std::uint64_t dtype_bytes(const std::string& dtype) {
    static const std::map<std::string, std::uint64_t> sizes = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"I16", 2}, {"U16", 2}, {"F16", 2}, {"BF16", 2},
        {"I32", 4},  {"U32", 4}, {"F32", 4}, {"I64", 8}, {"U64", 8}, {"F64", 8}};
    const auto found = sizes.find(dtype);
    return found == sizes.end() ? 0 : found->second;
}

// Bytes that a shape needs; raises InputError where the product would not fit.
std::uint64_t tensor_bytes(const std::string& dtype, const std::vector<std::int64_t>& shape,
                           const JsonReader& reader) {
    std::uint64_t total = dtype_bytes(dtype);
    if (total == 0) {
        reader.fail("dtype", "'" + dtype + "' is not known");
    }
    for (const std::int64_t side : shape) {
        if (side != 0 && total > kMaxLogitsBytes / static_cast<std::uint64_t>(side)) {
            reader.fail("shape", "is too large");
        }
        total *= static_cast<std::uint64_t>(side);
    }
    return total;
}

StoredTensor read_tensor(const JsonReader& reader, const Bytes& file, std::uint64_t data_start,
                         std::uint64_t& next) {
    StoredTensor tensor;
    tensor.dtype = reader.text("dtype");
    const json& shape = reader.at("shape");
    if (!shape.is_array()) {
        reader.fail("shape", "must be an array");
    }
    for (const json& side : shape) {
        tensor.shape.push_back(reader.integer(side, "shape", 0, kMaxSide));
    }
    const json& range = reader.array("data_offsets", 2);
    const auto limit = static_cast<std::int64_t>(file.size() - data_start);
    const auto first =
        static_cast<std::uint64_t>(reader.integer(range[0], "data_offsets", 0, limit));
    const auto last =
        static_cast<std::uint64_t>(reader.integer(range[1], "data_offsets", 0, limit));
    if (first != next || last < first ||
        last - first != tensor_bytes(tensor.dtype, tensor.shape, reader)) {
        reader.fail("data_offsets", "do not fit the shape, overlap or leave a gap");
    }
    next = last;
    const auto begin = file.begin() + static_cast<std::ptrdiff_t>(data_start);
    tensor.bytes.assign(begin + static_cast<std::ptrdiff_t>(first),
                        begin + static_cast<std::ptrdiff_t>(last));
    return tensor;
}

std::uint64_t header_length(const Bytes& file, const std::string& where) {
    std::uint64_t length = 0;
    for (std::size_t i = 8; i-- > 0 && file.size() >= 8;) {
        length = length << 8 | file[i];
    }
    if (file.size() < 8 || length > kMaxHeaderBytes || length > file.size() - 8) {
        throw InputError(where + ": not a safetensors file, or cut short");
    }
    return length;
}

void read_metadata(const JsonReader& reader, const json& object, Safetensors& result) {
    for (const auto& [key, value] : object.items()) {
        if (!value.is_string()) {
            reader.fail(key, "must be a string");
        }
        result.metadata[key] = value.get<std::string>();
    }
}

}  // namespace

const StoredTensor& Safetensors::get(const std::string& name, const std::string& dtype,
                                     std::size_t rank, const std::string& where) const {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
        throw InputError(where + ": holds no tensor '" + name + "'");
    }
    if (found->second.dtype != dtype || found->second.shape.size() != rank) {
        throw InputError(where + ": '" + name + "' must be " + dtype + " of rank " +
                         std::to_string(rank));
    }
    return found->second;
}

Safetensors read_safetensors(const std::filesystem::path& path) {
    const std::string where = path.string();
    const Bytes file = read_file(path, kMaxLogitsBytes);
    const std::uint64_t length = header_length(file, where);
    json header;
    try {
        // As chars: of bytes nlohmann/json before 3.11.3 and a newer libc++ do not compile.
        const char* text = reinterpret_cast<const char*>(file.data()) + kLengthBytes;
        header = json::parse(text, text + static_cast<std::ptrdiff_t>(length));
    } catch (const json::exception& error) {
        throw InputError(where + ": not a safetensors file: " + error.what());
    }
    const JsonReader root(header, where);
    // The format orders the bytes, not the names: walk the tensors as they lie in the file.
    std::vector<std::pair<std::int64_t, std::string>> order;
    Safetensors result;
    for (const auto& [name, value] : header.items()) {
        if (name == "__metadata__") {
            read_metadata(root.object(name), value, result);
            continue;
        }
        const JsonReader reader = root.object(name);
        order.emplace_back(
            reader.integer(reader.array("data_offsets", 2)[0], "data_offsets", 0, INT64_MAX), name);
    }
    std::sort(order.begin(), order.end());
    std::uint64_t next = 0;
    for (const auto& [offset, name] : order) {
        result.tensors[name] = read_tensor(root.object(name), file, length + 8, next);
    }
    if (next != file.size() - 8 - length) {
        throw InputError(where + ": has bytes that belong to no tensor");
    }
    return result;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     const std::vector<TensorDeclaration>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), metadata_(metadata) {
    std::string text = header_text(tensors);
    text.append((8 - text.size() % 8) % 8, ' ');  // tensors start on a multiple of 8 bytes
    header_bytes_ = text.size();
    std::array<std::uint8_t, kLengthBytes> length{};
    for (std::size_t i = 0; i < length.size(); ++i) {
        length[i] = static_cast<std::uint8_t>(text.size() >> (8 * i));
    }
    file_.write(length.data(), length.size());
    file_.write(text.data(), text.size());
}

std::string SafetensorsWriter::header_text(const std::vector<TensorDeclaration>& tensors) {
    nlohmann::ordered_json header;
    header["__metadata__"] = metadata_;
    expected_bytes_ = 0;
    for (const TensorDeclaration& tensor : tensors) {
        std::uint64_t size = dtype_bytes(tensor.dtype);
        for (const std::int64_t side : tensor.shape) {
            size *= static_cast<std::uint64_t>(side);
        }
        header[tensor.name] = {{"dtype", tensor.dtype},
                               {"shape", tensor.shape},
                               {"data_offsets", {expected_bytes_, expected_bytes_ + size}}};
        expected_bytes_ += size;
    }
    return header.dump();
}

void SafetensorsWriter::redeclare(const std::vector<TensorDeclaration>& tensors) {
    std::string text = header_text(tensors);
    if (text.size() > header_bytes_) {
        throw Error("safetensors: a header can be written again only with smaller tensors");
    }
    text.append(header_bytes_ - text.size(), ' ');
    file_.overwrite(kLengthBytes, text.data(), text.size());
}

void SafetensorsWriter::append(const void* data, std::size_t size_bytes) {
    file_.write(data, size_bytes);
    written_bytes_ += size_bytes;
}

void SafetensorsWriter::commit() {
    if (written_bytes_ != expected_bytes_) {
        throw Error("safetensors: " + std::to_string(written_bytes_) + " bytes written, " +
                    std::to_string(expected_bytes_) + " declared");
    }
    file_.commit();
}

}  // namespace edgevit
