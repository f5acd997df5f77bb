#include <doctest/doctest.h>

#include "reference.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

std::string encoded(const json& header, const std::string& data) {
    const std::string text = header.dump();
    std::string length(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) {
        length[i] = static_cast<char>(text.size() >> (8 * i));
    }
    return length + text + data;
}

json tensor(const char* dtype, const std::vector<std::int64_t>& shape, std::int64_t first,
            std::int64_t last) {
    return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {first, last}}};
}

std::string refusal(const TemporaryFolder& folder, const std::string& bytes) {
    return message_of<InputError>([&] { read_safetensors(write_text(folder / "t", bytes)); });
}

}  // namespace

TEST_CASE("what is written is read back") {
    const TemporaryFolder folder;
    {
        SafetensorsWriter writer(folder / "t",
                                 {{"a", "F32", {2, 1}}, {"b", "U8", {3}}, {"none", "I64", {0}}},
                                 {{"key", "value"}});
        const float numbers[] = {1.5F, -2};
        writer.append(numbers, 8);
        writer.append("xyz", 3);
        writer.commit();
    }
    const Safetensors file = read_safetensors(folder / "t");
    CHECK(file.metadata.at("key") == "value");
    CHECK(file.get("b", "U8", 1, "t").bytes == Bytes{'x', 'y', 'z'});
    CHECK(file.get("a", "F32", 2, "t").shape == std::vector<std::int64_t>{2, 1});
    CHECK(contains(message_of<InputError>([&] { file.get("c", "U8", 1, "t"); }),
                   "holds no tensor 'c'"));
    CHECK(contains(message_of<InputError>([&] { file.get("a", "F32", 1, "t"); }), "of rank 1"));
}

TEST_CASE("a writer that is short of bytes does not commit") {
    const TemporaryFolder folder;
    {
        SafetensorsWriter writer(folder / "t", {{"a", "U8", {2}}}, {});
        writer.append("x", 1);
        CHECK_THROWS_AS(writer.commit(), Error);
    }
    CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("files that are not safetensors are refused") {
    const TemporaryFolder folder;
    CHECK(contains(refusal(folder, ""), "not a safetensors file"));
    CHECK(contains(refusal(folder, std::string(8, '\xff')), "not a safetensors file"));
    CHECK(contains(refusal(folder, std::string("\x05\0\0\0\0\0\0\0{x", 10)), "cut short"));
    CHECK(contains(refusal(folder, encoded(json::array(), "")), "must be an object"));
    const auto with = [&](const json& entry, const std::string& data) {
        return refusal(folder, encoded({{"a", entry}}, data));
    };
    CHECK(with(tensor("U8", {3}, 0, 3), "abc") == "");
    CHECK(contains(with(tensor("U8", {3}, 0, 3), "ab"), "data_offsets"));
    CHECK(contains(with(tensor("U8", {3}, 0, 3), "abcd"), "belong to no tensor"));
    CHECK(contains(with(tensor("U8", {4}, 0, 3), "abc"), "do not fit the shape"));
    CHECK(contains(with(tensor("U8", {3}, 1, 4), "abcd"), "leave a gap"));
    CHECK(contains(with(tensor("U8", {-3}, 0, 3), "abc"), "a.shape must be an integer"));
    CHECK(contains(with(tensor("U9", {3}, 0, 3), "abc"), "'U9' is not known"));
    CHECK(contains(with(tensor("F32", {1LL << 31, 1LL << 31}, 0, 3), "abc"), "is too large"));
    CHECK(contains(
        refusal(folder,
                encoded({{"a", tensor("U8", {2}, 0, 2)}, {"b", tensor("U8", {2}, 1, 3)}}, "abc")),
        "overlap"));
}

TEST_CASE("reference logits are found by path") {
    const TemporaryFolder folder;
    const auto write = [&](const std::string& paths, const std::vector<float>& logits,
                           std::int64_t classes) {
        SafetensorsWriter writer(
            folder / "r",
            {{"logits", "F32", {static_cast<std::int64_t>(logits.size()) / classes, classes}},
             {"paths", "U8", {static_cast<std::int64_t>(paths.size())}}},
            {{"schema_version", "1"}, {"dataset_sha256", "abc"}});
        writer.append(logits.data(), logits.size() * 4);
        writer.append(paths.data(), paths.size());
        writer.commit();
    };
    write("c0/a.jpg\nc1/b.jpg", {1, 2, 3, 4}, 2);
    const ReferenceLogits reference = load_reference(folder / "r", 2);
    CHECK(reference.find(reference.logits, "c1/b.jpg")[1] == 4.0F);
    CHECK(reference.find(reference.logits, "c1/c.jpg") == nullptr);
    CHECK(reference.dataset_sha256 == "abc");
    CHECK_FALSE(reference.float_logits);
    const auto refused = [&] {
        return message_of<InputError>([&] { load_reference(folder / "r", 2); });
    };
    write("c0/a.jpg", {1, 2, 3}, 3);
    CHECK(contains(refused(), "has 3 classes, the artifact 2"));
    write("c0/a.jpg", {1, 2, 3, 4}, 2);
    CHECK(contains(refused(), "2 rows of logits for 1 different paths"));
    write("c0/a.jpg", {1, NAN}, 2);
    CHECK(contains(refused(), "NaN"));
}
