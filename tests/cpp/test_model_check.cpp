// The check of .tflite files: in one process, so that the sanitizers see every read.
#include "model_check.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::litert;
using namespace edgevit::test;

namespace {

const char* const kFiles[] = {EDGEVIT_TEST_DATA "/tiny.tflite",
                              EDGEVIT_TEST_DATA "/outputs.tflite"};

const char* const kNpuFile = EDGEVIT_TEST_DATA "/npu.tflite";

// Of memory that ends where the file does.
bool is_refused(const Bytes& model, Operators operators = Operators::builtin) {
    try {
        check_model(model, "m.tflite", operators);
        return false;
    } catch (const InputError& error) {
        CHECK(contains(error.what(), "m.tflite: is a damaged .tflite model"));
        return true;
    }
}

}  // namespace

TEST_CASE("a whole model passes, and no part of one") {
    for (const char* file : kFiles) {
        const Bytes model = read_file(file, 1 << 20);
        CHECK_FALSE(is_refused(model));
        for (std::size_t size = 0; size + 8 < model.size(); size += 3) {
            const Bytes part(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(size));
            CAPTURE(size);
            CHECK(is_refused(part));
        }
    }
}

TEST_CASE("every turned bit is read within the file") {
    std::size_t refused = 0, flips = 0;
    for (const char* file : kFiles) {
        Bytes model = read_file(file, 1 << 20);
        for (std::size_t place = 0; place < model.size(); ++place) {
            for (int bit = 0; bit < 8; ++bit, ++flips) {
                model[place] ^= static_cast<std::uint8_t>(1 << bit);
                refused += is_refused(model) ? 1 : 0;
                model[place] ^= static_cast<std::uint8_t>(1 << bit);
            }
        }
    }
    CHECK(refused > flips / 4);
    CHECK(refused < flips);
}

TEST_CASE("what is random or endless is refused") {
    Bytes noise(4096);
    std::uint32_t state = 1;
    for (int round = 0; round < 2000; ++round) {
        for (std::size_t i = 0; i < noise.size(); ++i) {
            state = state * 1664525 + 1013904223;
            noise[i] = static_cast<std::uint8_t>(state >> 24) & (round % 2 == 0 ? 0xff : 0x1f);
        }
        std::memcpy(noise.data() + 4, "TFL3", 4);
        CHECK(is_refused(noise));
    }
}

TEST_CASE("a program of an NPU passes where one is expected, and no part of one") {
    const Bytes model = read_file(kNpuFile, 1 << 20);
    CHECK(is_refused(model));
    CHECK_FALSE(is_refused(model, Operators::dispatched_too));
    for (std::size_t size = 0; size < model.size(); ++size) {
        const Bytes part(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(size));
        CAPTURE(size);
        CHECK(is_refused(part, Operators::dispatched_too));
    }
}

TEST_CASE("every turned bit of a program's place is read within the file") {
    Bytes model = read_file(kNpuFile, 1 << 20);
    std::size_t refused = 0, flips = 0;
    for (std::size_t place = 0; place < model.size() - 64; ++place) {
        for (int bit = 0; bit < 8; ++bit, ++flips) {
            model[place] ^= static_cast<std::uint8_t>(1 << bit);
            refused += is_refused(model, Operators::dispatched_too) ? 1 : 0;
            model[place] ^= static_cast<std::uint8_t>(1 << bit);
        }
    }
    CHECK(refused > flips / 4);
    CHECK(refused < flips);
}

TEST_CASE("an NPU's program that lies elsewhere is refused, and so is another operator") {
    const std::string whole = read_text(kNpuFile);
    const auto refused = [&](const std::string& old, const std::string& now) {
        std::string model = whole;
        const std::size_t place = model.find(old);
        REQUIRE(place != std::string::npos);
        model.replace(place, now.size(), now);
        const Bytes bytes(model.begin(), model.end());
        return message_of<InputError>(
            [&] { check_model(bytes, "m.tflite", Operators::dispatched_too); });
    };
    using namespace std::string_literals;
    CHECK(refused("image", "image").empty());
    CHECK(contains(refused("DISPATCH_OP", "DISPATCH_OQ"), "an operator of its own kind"));
    CHECK(contains(refused("bytecode_size", "bytecode_sine"), "options that cannot be read"));
    // The map's values, 16 bits each: the offset 1024 and the size 64.
    CHECK(contains(refused("\x00\x04\x40\x00"s, "\x01\x04\x40\x00"s), "lies behind its end"));
    CHECK(contains(refused("\x00\x04\x40\x00"s, "\x00\x04\x41\x00"s), "lies behind its end"));
    CHECK(contains(refused("\x00\x04\x40\x00"s, "\xff\xff\x40\x00"s), "lies behind its end"));
    CHECK(contains(refused("\x00\x04\x40\x00"s, "\x00\x04\x00\x00"s), "lies behind its end"));
}
