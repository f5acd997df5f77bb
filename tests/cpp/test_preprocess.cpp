#include "core/preprocess.h"

#include <doctest/doctest.h>

#include <cstdio>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

ImageView source() {
    const StoredTensor& tensor = goldens().tensors.at("resize/source");
    const auto width = static_cast<int>(tensor.shape[1]);
    return {tensor.bytes.data(), width, static_cast<int>(tensor.shape[0]),
            static_cast<std::size_t>(width) * 3};
}

Manifest manifest_for(int image_size, int resize_size, const std::string& interpolation) {
    json document = manifest_json(3);
    document["input"]["shape"] = {1, image_size, image_size, 3};
    document["preprocessing"]["image_size"] = image_size;
    document["preprocessing"]["resize_size"] = resize_size == 0 ? json(nullptr) : json(resize_size);
    document["preprocessing"]["interpolation"] = interpolation;
    return parse_manifest(document.dump(), "test");
}

}  // namespace

TEST_CASE("a crop starts where Python's round() says") {
    // round() goes to the even neighbour from a half: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, 3.5 -> 4.
    CHECK(centre_crop_start(10, 10) == 0);
    CHECK(centre_crop_start(11, 10) == 0);
    CHECK(centre_crop_start(12, 10) == 1);
    CHECK(centre_crop_start(13, 10) == 2);
    CHECK(centre_crop_start(15, 10) == 2);
    CHECK(centre_crop_start(17, 10) == 4);
}

TEST_CASE("the longer side is rounded down") {
    Preprocessing rules;
    rules.resize = Resize::shorter;
    rules.target = {256, 256};
    CHECK(resized(640, 480, rules).width == 341);
    CHECK(resized(640, 480, rules).height == 256);
    rules.target = {7, 7};
    CHECK(resized(3, 1000, rules).width == 7);
    CHECK(resized(3, 1000, rules).height == 2333);
}

TEST_CASE("the input holds the pixels that Python's preprocessing gives") {
    int cases = 0;
    for (const std::string& name : golden_names("input/")) {
        CAPTURE(name);
        int size = 0, resize = 0;
        char interpolation[16] = {};
        REQUIRE(std::sscanf(name.c_str(), "%d/%d/%15s", &size, &resize, interpolation) == 3);
        const Manifest manifest = manifest_for(size, resize, interpolation);
        Bytes out(manifest.input.size_bytes());
        Preprocessor(manifest).run(source(), out.data());
        CHECK(out == goldens().tensors.at("input/" + name).bytes);
        ++cases;
    }
    CHECK(cases == 8);
}

TEST_CASE("every kind of pre-processing gives Python's pixels to the last bit") {
    const Safetensors file = read_safetensors(EDGEVIT_TEST_DATA "/preparation.safetensors");
    int cases = 0;
    for (const auto& [name, tensor] : file.tensors) {
        if (name.compare(0, 6, "rules/") != 0) {
            continue;
        }
        const json rules = json::parse(tensor.bytes.begin(), tensor.bytes.end());
        CAPTURE(rules.dump());
        const StoredTensor& expected = file.tensors.at("pixels/" + name.substr(6));
        json document = manifest_json(3);
        document["schema_version"] = 3;
        document["preprocessing"] = rules;
        document["input"]["shape"] = {1, expected.shape[0], expected.shape[1], expected.shape[2]};
        const json row = document["input"]["table"][0];
        document["input"]["table"] = json(static_cast<std::size_t>(expected.shape[2]), row);
        const Manifest manifest = parse_manifest(document.dump(), "test");
        Preprocessor preprocessor(manifest);
        const StoredTensor& picture =
            file.tensors.at(preprocessor.takes_alpha() ? "source/rgba" : "source/rgb");
        const int channels = preprocessor.takes_alpha() ? 4 : 3;
        const auto width = static_cast<int>(picture.shape[1]);
        const ImageView view = {picture.bytes.data(), width, static_cast<int>(picture.shape[0]),
                                static_cast<std::size_t>(width * channels), channels};
        Bytes out(manifest.input.size_bytes());
        preprocessor.run(view, out.data());
        CHECK(out == expected.bytes);
        ++cases;
    }
    CHECK(cases == 49);
}

TEST_CASE("a picture without alpha is opaque for a net that takes it") {
    json document = manifest_json(3);
    document["schema_version"] = 3;
    document["preprocessing"]["channels"] = "RGBA";
    document["preprocessing"]["mean"] = document["preprocessing"]["std"] = {0.5, 0.5, 0.5, 0.5};
    document["input"]["shape"] = {1, 8, 8, 4};
    document["input"]["table"].push_back(document["input"]["table"][0]);
    const Manifest manifest = parse_manifest(document.dump(), "test");
    const ImageView image = {source().row(0), 8, 8, source().stride_bytes};
    Bytes out(manifest.input.size_bytes());
    Preprocessor(manifest).run(image, out.data());
    for (std::size_t i = 0; i < 8; ++i) {
        CHECK(std::memcmp(&out[4 * i], image.row(0) + 3 * i, 3) == 0);
        CHECK(out[4 * i + 3] == 255);
    }
}

TEST_CASE("every channel goes through its own table, of one or four bytes an entry") {
    json document = manifest_json(3);
    document["input"]["dtype"] = "float32";
    document["input"]["scale"] = document["input"]["zero_point"] = nullptr;
    for (std::size_t channel = 0; channel < 3; ++channel) {
        for (std::size_t pixel = 0; pixel < 256; ++pixel) {
            document["input"]["table"][channel][pixel] =
                static_cast<double>(channel) * 1000.0 + 0.5 * static_cast<double>(pixel);
        }
    }
    const Manifest manifest = parse_manifest(document.dump(), "test");
    Bytes pixels(8 * 8 * 3);
    for (std::size_t i = 0; i < pixels.size(); ++i) {
        pixels[i] = static_cast<std::uint8_t>(i);
    }
    Bytes out(manifest.input.size_bytes());
    Preprocessor(manifest).run({pixels.data(), 8, 8, 24}, out.data());
    for (std::size_t i = 0; i < pixels.size(); ++i) {
        float value = 0;
        std::memcpy(&value, out.data() + 4 * i, 4);
        CHECK(value == static_cast<float>(i % 3) * 1000.0F + 0.5F * static_cast<float>(pixels[i]));
    }
}

TEST_CASE("with the channels first, a channel is a plane of its own") {
    for (const char* dtype : {"uint8", "float16", "float32"}) {
        CAPTURE(dtype);
        json document = manifest_json(3);
        document["input"]["dtype"] = dtype;
        if (std::string(dtype) != "uint8") {
            document["input"]["scale"] = document["input"]["zero_point"] = nullptr;
        }
        const Manifest rows = parse_manifest(document.dump(), "test");
        document["input"]["layout"] = "NCHW";
        document["input"]["shape"] = {1, 3, 8, 8};
        const Manifest planes = parse_manifest(document.dump(), "test");
        const ImageView image = {source().row(0), 8, 8,
                                 static_cast<std::size_t>(source().width) * 3};
        Bytes by_pixel(rows.input.size_bytes()), by_plane(planes.input.size_bytes());
        Preprocessor(rows).run(image, by_pixel.data());
        Preprocessor(planes).run(image, by_plane.data());
        const std::size_t size = element_size_bytes(rows.input.dtype);
        std::size_t equal = 0;
        for (std::size_t pixel = 0; pixel < 64; ++pixel) {
            for (std::size_t channel = 0; channel < 3; ++channel) {
                equal += std::memcmp(&by_pixel[(pixel * 3 + channel) * size],
                                     &by_plane[(channel * 64 + pixel) * size], size) == 0
                             ? 1
                             : 0;
            }
        }
        CHECK(equal == 192);
    }
}

TEST_CASE("an image that does not fill the crop is refused") {
    const Manifest manifest = manifest_for(32, 0, "bicubic");
    Bytes out(manifest.input.size_bytes());
    const std::string message =
        message_of<InputError>([&] { Preprocessor(manifest).run(source(), out.data()); });
    CHECK(contains(message, "29x21"));
    CHECK(contains(message, "resize_size"));
}

TEST_CASE("an image so thin that resizing it would fill the memory is refused") {
    const Manifest manifest = manifest_for(512, 512, "bicubic");
    const Bytes line(3 * 4'000'000);
    Bytes out(manifest.input.size_bytes());
    const ImageView thin = {line.data(), 4'000'000, 1, line.size()};
    CHECK(contains(message_of<InputError>([&] { Preprocessor(manifest).run(thin, out.data()); }),
                   "4000000x1"));
}
