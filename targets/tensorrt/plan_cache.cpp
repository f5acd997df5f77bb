#include "plan_cache.h"

#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "core/errors.h"
#include "core/json_reader.h"
#include "core/platform.h"
#include "core/sha256.h"

namespace edgevit::tensorrt {
namespace {

using json = nlohmann::ordered_json;

constexpr int kSchemaVersion = 2;
constexpr const char* kKind = "edgevit-plan";
constexpr std::uint64_t kMaxRecordBytes = 64 << 10;

std::string sha256_of(ByteView bytes) {
    return sha256_hex({reinterpret_cast<const char*>(bytes.data), bytes.size});
}

std::string record_text(const PlanKey& key, const std::string& plan_sha256) {
    const json record = {{"schema_version", kSchemaVersion},
                         {"kind", kKind},
                         {"onnx_sha256", key.onnx_sha256},
                         {"plan_sha256", plan_sha256},
                         {"device", key.device},
                         {"compute_capability", key.compute_capability},
                         {"tensorrt", key.tensorrt},
                         {"cuda_driver", key.cuda_driver},
                         {"multiprocessors", key.multiprocessors},
                         {"settings", key.settings}};
    return record.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

// The plan's sha256 where the record is whole and of this key, else nothing.
std::optional<std::string> recorded_sha256(const std::filesystem::path& path, const PlanKey& key) {
    const Bytes bytes = read_file(path, kMaxRecordBytes);
    // As chars: of bytes nlohmann/json before 3.11.3 and a newer libc++ do not compile.
    const auto* text = reinterpret_cast<const char*>(bytes.data());
    const auto document = nlohmann::json::parse(text, text + bytes.size());
    const JsonReader record(document, path.string());
    if (record.integer("schema_version", 0, INT64_MAX) != kSchemaVersion ||
        record.text("kind") != kKind) {
        return std::nullopt;
    }
    const PlanKey found = {
        record.text("onnx_sha256"), record.text("device"),      record.text("compute_capability"),
        record.text("tensorrt"),    record.text("cuda_driver"), record.text("multiprocessors"),
        record.text("settings")};
    return found == key ? std::optional(record.text("plan_sha256")) : std::nullopt;
}

}  // namespace

bool PlanKey::operator==(const PlanKey& other) const {
    const auto all = [](const PlanKey& key) {
        return std::tie(key.onnx_sha256, key.device, key.compute_capability, key.tensorrt,
                        key.cuda_driver, key.multiprocessors, key.settings);
    };
    return all(*this) == all(other);
}

PlanCache::PlanCache(std::filesystem::path folder) : folder_(std::move(folder)) {
    if (!std::filesystem::is_directory(folder_)) {
        throw InputError(folder_.string() +
                         ": no such folder for plans; make it first (`mkdir -m 700`)");
    }
    if (!is_writable_folder(folder_)) {  // told before minutes of building
        throw InputError(folder_.string() + ": plans cannot be written into this folder");
    }
}

std::optional<Bytes> PlanCache::find(const PlanKey& key) const {
    if (!std::filesystem::exists(record_file(key)) || !std::filesystem::exists(plan_file(key))) {
        return std::nullopt;
    }
    try {
        const std::optional<std::string> expected = recorded_sha256(record_file(key), key);
        if (!expected) {
            return std::nullopt;
        }
        Bytes plan = read_file(plan_file(key), kMaxPlanBytes);
        return sha256_of(plan) == *expected ? std::optional(std::move(plan)) : std::nullopt;
    } catch (const InputError&) {
        return std::nullopt;  // a key is missing, or a file is too large or unreadable
    } catch (const nlohmann::json::exception&) { return std::nullopt; }
}

void PlanCache::store(const PlanKey& key, ByteView plan) const {
    // In this order: between the two, the old record does not fit the new plan.
    write_whole(plan_file(key), plan);
    const std::string record = record_text(key, sha256_of(plan));
    write_whole(record_file(key),
                {reinterpret_cast<const std::uint8_t*>(record.data()), record.size()});
}

std::filesystem::path PlanCache::plan_file(const PlanKey& key) const {
    return folder_ / (key.onnx_sha256 + ".plan");
}

std::filesystem::path PlanCache::record_file(const PlanKey& key) const {
    return folder_ / (key.onnx_sha256 + ".json");
}

void write_whole(const std::filesystem::path& path, ByteView bytes) {
    AtomicFile file(path);
    file.write(bytes.data, bytes.size);
    file.commit();
}

}  // namespace edgevit::tensorrt
