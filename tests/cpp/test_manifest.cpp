#include "core/manifest.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

std::string refusal(const json& document) {
    return message_of<InputError>([&] { parse_manifest(document.dump(), "manifest.json"); });
}

// The good manifest with the value at a JSON pointer replaced.
std::string refusal_with(const std::string& pointer, const json& value) {
    json document = manifest_json(3);
    document[json::json_pointer(pointer)] = value;
    return refusal(document);
}

std::string refusal_without(const std::string& pointer) {
    const json::json_pointer place(pointer);
    json document = manifest_json(3);
    document[place.parent_pointer()].erase(place.back());
    return refusal(document);
}

}  // namespace

TEST_CASE("a good manifest is read") {
    json document = manifest_json(3);
    document["a_later_key"] = "is left alone";
    document["reference"] = {{"file", "r.safetensors"},
                             {"sha256", std::string(64, 'a')},
                             {"dataset_sha256", std::string(64, 'b')},
                             {"count", 5}};
    const Manifest manifest = parse_manifest(document.dump(), "x");
    CHECK(manifest.target == "null");
    CHECK(manifest.classes == 3);
    CHECK(manifest.input.describe() == "uint8 [1, 8, 8, 3] scale 0.5 zero-point 3");
    CHECK(manifest.task == "classification");
    REQUIRE(manifest.outputs.size() == 1);
    CHECK(manifest.logits().describe() == "int8 [1, 3] scale 0.25 zero-point -1");
    CHECK(manifest.table[2][255] == 255);
    CHECK(manifest.preprocessing.resize == Resize::shorter);
    CHECK(manifest.preprocessing.target.width == 8);
    CHECK(manifest.preprocessing.side() == 8);
    CHECK(manifest.labels == std::vector<std::string>{"c0", "c1", "c2"});
    CHECK(manifest.layout == Layout::nhwc);
    CHECK(manifest.options == std::map<std::string, std::string>{{"io", "int8"}});
    REQUIRE(manifest.reference);
    CHECK(manifest.reference->file == "r.safetensors");
}

TEST_CASE("the golden manifests are taken, or refused for the reason of the table") {
    int taken = 0;
    int refused = 0;
    for (const json& row : json::parse(golden_manifest("table.json"))) {
        const std::string file = row.at("file");
        CAPTURE(file);
        const std::string text = golden_manifest(file);
        const std::string said =
            message_of<InputError>([&] { parse_manifest(text, "manifest.json"); });
        if (row.at("cpp").is_null()) {
            CHECK(said == "");
            ++taken;
        } else {
            CHECK(contains(said, row.at("cpp").get<std::string>()));
            ++refused;
        }
    }
    CHECK(taken >= 13);
    CHECK(refused >= 50);
}

TEST_CASE("version 1 is read as a classification with one output") {
    const Manifest manifest =
        parse_manifest(golden_manifest("good-version-1-tflite-int8.json"), "m");
    CHECK(manifest.is_classification());
    REQUIRE(manifest.outputs.size() == 1);
    CHECK(manifest.logits().describe() == "int8 [1, 10] scale 0.0315856934 zero-point 0");
    const Manifest newer = parse_manifest(golden_manifest("good-tflite-int8.json"), "m");
    CHECK(newer.logits().describe() == manifest.logits().describe());
    CHECK(newer.table == manifest.table);
}

TEST_CASE("outputs are of any number and rank") {
    const Manifest manifest =
        parse_manifest(golden_manifest("good-features-without-classes.json"), "m");
    CHECK(manifest.task == "features");
    CHECK_FALSE(manifest.is_classification());
    CHECK(manifest.labels.empty());
    REQUIRE(manifest.outputs.size() == 3);
    CHECK(manifest.outputs[2].describe() == "float32 [1, 32, 2, 2]");
    CHECK(parse_manifest(golden_manifest("good-several-outputs.json"), "m").outputs.size() == 2);
}

TEST_CASE("every key is needed, and the message names it") {
    for (const char* pointer : {"/schema_version",
                                "/kind",
                                "/target",
                                "/artifact",
                                "/artifact/file",
                                "/artifact/sha256",
                                "/program",
                                "/program/sha256",
                                "/profile",
                                "/options",
                                "/model/variant",
                                "/model/classes",
                                "/input/shape",
                                "/input/layout",
                                "/input/dtype",
                                "/input/scale",
                                "/input/zero_point",
                                "/input/table",
                                "/task",
                                "/outputs",
                                "/outputs/0/name",
                                "/outputs/0/dtype",
                                "/outputs/0/scale",
                                "/preprocessing/image_size",
                                "/preprocessing/resize_size",
                                "/preprocessing/interpolation",
                                "/preprocessing/mean",
                                "/preprocessing/std",
                                "/labels",
                                "/reference"}) {
        CAPTURE(pointer);
        std::string name = std::string(pointer).substr(1);
        std::replace(name.begin(), name.end(), '/', '.');
        CHECK(refusal_without(pointer) == "manifest.json: " + name + " is missing");
    }
}

TEST_CASE("what this program does not know is refused") {
    CHECK(contains(refusal_with("/schema_version", 4),
                   "schema_version is 4, this program reads up to 3"));
    CHECK(contains(refusal_with("/schema_version", "1"), "schema_version must be an integer"));
    CHECK(contains(refusal_with("/kind", "edgevit-result"), "expected 'edgevit-artifact'"));
    CHECK(contains(refusal_with("/input/dtype", "int4"), "input.dtype is 'int4'"));
    CHECK(contains(refusal_with("/input/layout", "CHWN"), "known are NHWC, NCHW"));
    CHECK(contains(refusal_with("/preprocessing/interpolation", "lanczos"),
                   "known are bicubic, bilinear, nearest, box, area"));
}

TEST_CASE("values out of range are refused") {
    for (const char* name : {"", "..", "../model.tflite", "/etc/passwd", "a/b"}) {
        CHECK(contains(refusal_with("/artifact/file", name),
                       "name of a file in the artifact folder"));
    }
    CHECK(contains(refusal_with("/artifact/sha256", "abc"), "64 lower-case hexadecimal digits"));
    CHECK(contains(refusal_with("/input/scale", 0), "positive float32"));
    CHECK(contains(refusal_with("/input/scale", -0.5), "positive float32"));
    CHECK(contains(refusal_with("/input/scale", 1e-60), "positive float32"));
    CHECK(contains(refusal_with("/input/scale", nullptr), "finite number"));
    CHECK(contains(refusal_with("/input/zero_point", 256), "from 0 to 255"));
    CHECK(contains(refusal_with("/outputs/0/zero_point", 128), "from -128 to 127"));
    CHECK(contains(refusal_with("/input/table/1", json::array({1, 2})), "arrays of 256"));
    CHECK(contains(refusal_with("/input/table/1/7", 256),
                   "input.table must be an integer from 0 to 255"));
    CHECK(
        contains(refusal_with("/input/table/1/7", 18446744073709551615ULL), "must be an integer"));
    CHECK(contains(refusal_with("/input/shape", {1, 9, 8, 3}), "must be [1,8,8,3]"));
    CHECK(contains(refusal_with("/outputs/0/shape", {1, 4}), "[1, model.classes]"));
    CHECK(contains(refusal_with("/outputs/0/shape", {2, 3}), "must start with 1"));
    CHECK(contains(refusal_with("/labels", {"a", "b"}), "labels must be an array of 3"));
    CHECK(contains(refusal_with("/labels/1", 5), "labels must be strings"));
    CHECK(contains(refusal_with("/labels/1", "c0"), "labels names 'c0' twice"));
    CHECK(contains(refusal_with("/preprocessing/image_size", 5000), "from 1 to 4096"));
    CHECK(contains(refusal_with("/preprocessing/resize_size", 7),
                   "resize_size must be an integer from 8"));
    CHECK(contains(refusal_with("/model/classes", 0), "from 1 to"));
    CHECK(contains(refusal_with("/model", 5), "model must be an object"));
    CHECK(contains(refusal_with("/options", json::array()), "options must be an object"));
    CHECK(contains(refusal_with("/options/io", 8), "options.io must be a string"));
    CHECK(refusal_with("/options", json::object()) == "");
}

TEST_CASE("version 2 lists outputs of any rank, the first of them the logits") {
    const json logits = output_json("logits", {1, 3}, "int8", 0.25, -1);
    const json map = output_json("map", {1, 2, 2, 2, 2, 2, 2, 2}, "float16");
    const json none = output_json("one", {1}, "uint8");
    const auto read = [](const std::vector<json>& outputs) {
        return parse_manifest(with_outputs(manifest_json(3), outputs).dump(), "m");
    };
    const Manifest manifest = read({logits, map, none});
    REQUIRE(manifest.outputs.size() == 3);
    CHECK(manifest.is_classification());
    CHECK(manifest.logits().name == "logits");
    CHECK(manifest.outputs[1].describe() == "float16 [1, 2, 2, 2, 2, 2, 2, 2]");
    CHECK(manifest.outputs[1].size_bytes() == 256);
    CHECK(manifest.outputs[2].describe() == "uint8 [1]");

    const auto refused = [&](const std::vector<json>& outputs) {
        return message_of<InputError>([&] { read(outputs); });
    };
    CHECK(contains(refused({map, logits}), "outputs.0.shape must be [1, model.classes]"));
    CHECK(contains(refused({logits, logits}), "outputs.1.name 'logits' is given twice"));
    CHECK(contains(refused({logits, 5}), "outputs.1 must be an object"));
    CHECK(contains(refused({}), "outputs must be an array of 1 to 64"));
    CHECK(contains(refused(std::vector<json>(65, logits)), "outputs must be an array of 1"));
    const auto shaped = [&](const json& shape) {
        json other = map;
        other["shape"] = shape;
        return refused({logits, other});
    };
    CHECK(contains(shaped(json::array()), "outputs.1.shape must be an array of 1 to 8"));
    CHECK(contains(shaped({1, 1, 1, 1, 1, 1, 1, 1, 1}), "shape must be an array of 1 to 8"));
    CHECK(contains(shaped({2, 3}), "must start with 1"));
    CHECK(contains(shaped({1, 0}), "from 1 to 268435456"));
    CHECK(contains(shaped({1, 65536, 65536}), "has over 268435456 elements"));
    CHECK(contains(shaped({1, 268435457}), "from 1 to 268435456"));
    CHECK(shaped({1, 16384, 16384}) == "");
}

TEST_CASE("another task has outputs, and classes only if it says so") {
    json document = with_outputs(manifest_json(3), {output_json("boxes", {1, 7, 4}, "float32")});
    CHECK(contains(refusal(document), "outputs.0.shape must be [1, model.classes]"));
    document["task"] = "features";
    const Manifest manifest = parse_manifest(document.dump(), "m");
    CHECK_FALSE(manifest.is_classification());
    CHECK(manifest.classes == 3);
    document["model"]["classes"] = 0;
    document["labels"] = json::array();
    CHECK(parse_manifest(document.dump(), "m").labels.empty());
    document["task"] = "classification";
    CHECK(contains(refusal(document), "model.classes must be an integer from 1"));
    document.erase("task");
    CHECK(refusal(document) == "manifest.json: task is missing");
}

TEST_CASE("the channels may come first") {
    json document = manifest_json(3);
    document["input"]["layout"] = "NCHW";
    CHECK(contains(refusal(document), "must be [1,3,8,8]"));
    document["input"]["shape"] = {1, 3, 8, 8};
    CHECK(parse_manifest(document.dump(), "m").layout == Layout::nchw);
}

TEST_CASE("a float32 input has no scale") {
    json document = manifest_json(3);
    document["input"]["dtype"] = "float32";
    CHECK(contains(refusal(document), "must be null for floats"));
    document["input"]["scale"] = document["input"]["zero_point"] = nullptr;
    CHECK(refusal(document) == "");
    document["input"]["table"][0][0] = 1e300;
    CHECK(contains(refusal(document), "no float32 can hold"));
}

TEST_CASE("a float16 input has no scale, and a table of halves") {
    json document = manifest_json(3);
    document["input"]["dtype"] = "float16";
    CHECK(contains(refusal(document), "must be null for floats"));
    document["input"]["scale"] = document["input"]["zero_point"] = nullptr;
    document["input"]["table"][2][1] = -0.0999755859375;  // the half nearest to -0.1
    const Manifest manifest = parse_manifest(document.dump(), "m");
    CHECK(manifest.input.size_bytes() == 2 * 8 * 8 * 3);
    REQUIRE(manifest.table[2].size() == 512);
    CHECK(manifest.table[2][2] == 0x66);
    CHECK(manifest.table[2][3] == 0xae);
    for (const double no_half : {-0.1, 65520.0, 1e300, 1e-8}) {
        document["input"]["table"][2][1] = no_half;
        CHECK(contains(refusal(document), "which is no float16"));
    }
}

TEST_CASE("an image's pixels have no scale, quantized numbers have one") {
    json document = manifest_json(3);
    document["input"]["scale"] = document["input"]["zero_point"] = nullptr;
    const Manifest manifest = parse_manifest(document.dump(), "m");
    CHECK(manifest.input.describe() == "uint8 [1, 8, 8, 3]");
    CHECK(manifest.table[0][200] == 200);
    document["input"]["zero_point"] = 0;
    CHECK(contains(refusal(document), "input.scale must be a finite number"));
    document = manifest_json(3);
    document["outputs"][0]["scale"] = document["outputs"][0]["zero_point"] = nullptr;
    CHECK(contains(refusal(document), "outputs.0.scale must be a finite number"));
}

TEST_CASE("text that is no JSON object is refused") {
    CHECK(contains(message_of<InputError>([] { parse_manifest("{", "m"); }), "not valid JSON"));
    CHECK(contains(message_of<InputError>([] { parse_manifest("[]", "m"); }), "must be an object"));
    CHECK(contains(message_of<InputError>([] { parse_manifest("{\"a\": NaN}", "m"); }),
                   "not valid JSON"));
    CHECK(contains(message_of<InputError>([] { parse_manifest(std::string(100000, '['), "m"); }),
                   "not valid JSON"));
}

TEST_CASE("an artifact must be the one of its manifest") {
    const TemporaryFolder folder;
    CHECK(contains(message_of<InputError>([&] { load_artifact(folder / "none"); }),
                   "no such artifact folder"));
    CHECK(contains(message_of<InputError>([&] { load_artifact(folder.path()); }),
                   "manifest.json: cannot open"));
    write_artifact(folder.path(), manifest_json(3));
    CHECK(load_artifact(folder.path()).artifact_path() == folder / "model.bin");
    write_text(folder / "model.bin", "another");
    CHECK(contains(message_of<InputError>([&] { load_artifact(folder.path()); }),
                   "the manifest says"));
    fs::remove(folder / "model.bin");
    CHECK(contains(message_of<InputError>([&] { load_artifact(folder.path()); }), "cannot open"));
}

TEST_CASE("an artifact may be a folder, all of whose files count") {
    const TemporaryFolder folder;
    json manifest = manifest_json(3);
    manifest["artifact"]["file"] = "model.mlpackage";
    const fs::path package = folder / "model.mlpackage";
    write_text(package / "Manifest.json", "{}");
    write_text(package / "Data" / "weight.bin", "weights");
    manifest["artifact"]["sha256"] = sha256_tree(package);
    write_text(folder / "manifest.json", manifest.dump());
    CHECK(load_artifact(folder.path()).artifact_path() == package);

    const auto refused = [&] {
        return message_of<InputError>([&] { load_artifact(folder.path()); });
    };
    write_text(package / ".DS_Store", "left by the Finder");
    CHECK(contains(refused(), "model.mlpackage: its sha256 is"));
    CHECK(contains(refused(), "such as .DS_Store"));
    fs::remove(package / ".DS_Store");
    fs::rename(package / "Data" / "weight.bin", package / "Data" / "weights.bin");
    CHECK(contains(refused(), "the manifest says"));
    fs::remove_all(package);
    CHECK(contains(refused(), "model.mlpackage: cannot open"));
}
