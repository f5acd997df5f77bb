// The C API over the null back-end, and over back-ends that wait or throw.
#include "edgevit/edgevit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <new>
#include <numeric>
#include <thread>

#include "backend.h"
#include "core/half.h"
#include "core/preprocess.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

// A back-end whose answer is the same for every input, and whose invoke() does what a test says.
std::function<void()> on_invoke;
Bytes scripted_answer;
RuntimeOptions scripted_options;
int outputs_read = 0;

class ScriptedBackend : public Backend {
  public:
    explicit ScriptedBackend(const Manifest& manifest)
        : input_(manifest.input), outputs_(manifest.outputs.rbegin(), manifest.outputs.rend()) {}
    std::vector<TensorSpec> inputs() const override { return {input_}; }
    std::vector<TensorSpec> outputs() const override { return outputs_; }
    void set_input(ByteView bytes) override { CHECK(bytes.size == input_.size_bytes()); }
    void invoke() override {
        if (on_invoke) {
            on_invoke();
        }
    }
    // The last output is the scripted answer; of the others every byte is the index.
    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) override {
        ++outputs_read;
        if (index + 1 < outputs_.size()) {
            std::fill_n(out, size_bytes, static_cast<std::uint8_t>(index));
            return;
        }
        REQUIRE(size_bytes == scripted_answer.size());
        std::memcpy(out, scripted_answer.data(), size_bytes);
    }
    RuntimeFacts facts() const override { return {}; }
    OpReport profile(ByteView, int) override { return {}; }

  private:
    TensorSpec input_;
    std::vector<TensorSpec> outputs_;  // in another order than the manifest's
};

std::unique_ptr<Backend> open_scripted(const Manifest& manifest, const BackendOptions& options) {
    scripted_options = options.runtime_options;
    return std::make_unique<ScriptedBackend>(manifest);
}

[[maybe_unused]] const bool scripted = register_backend(
    "scripted", open_scripted,
    {{"mode", "how", {"fast", "slow"}}, {"size", "how much", {}, {{-8, 8}}}, {"folder", "where"}});

// A picture of one plane.
edgevit_image packed(const std::uint8_t* pixels, std::size_t width, std::size_t height,
                     std::size_t stride, edgevit_pixel_format format) {
    edgevit_image image;
    edgevit_image_init(&image);
    image.width = width, image.height = height, image.format = format;
    image.planes[0].data = pixels, image.planes[0].stride_bytes = stride;
    return image;
}

struct Closer {
    void operator()(edgevit_session* session) const {
        CHECK(edgevit_close(session, nullptr) == EDGEVIT_OK);
    }
};
using Opened = std::unique_ptr<edgevit_session, Closer>;

// An artifact folder, its session, and a picture.
struct Fixture {
    TemporaryFolder folder;
    json manifest = manifest_json(7);
    edgevit_error error = {};
    Bytes pixels = Bytes(20 * 10 * 4);
    edgevit_image image = packed(pixels.data(), 20, 10, 80, EDGEVIT_RGBA8888);

    Fixture() {
        std::iota(pixels.begin(), pixels.end(), std::uint8_t{0});
        scripted_answer = {1, 9, 3, 9, 0, 2, 9};
        on_invoke = nullptr;
    }

    edgevit_status open(edgevit_session** session, const char* backend = nullptr) {
        write_artifact(folder.path(), manifest);
        return open_as_it_is(session, backend);
    }

    edgevit_status open_as_it_is(edgevit_session** session, const char* backend = nullptr) {
        edgevit_options options;
        edgevit_options_init(&options);
        options.backend = backend;
        return edgevit_open(folder.path().c_str(), &options, session, &error);
    }

    Opened opened(const char* backend = nullptr) {
        edgevit_session* session = nullptr;
        const edgevit_status status = open(&session, backend);
        INFO(error.message);
        REQUIRE(status == EDGEVIT_OK);
        return Opened(session);
    }

    // What opening the folder as it is ends with.
    edgevit_status refusal() {
        edgevit_session* session = nullptr;
        const edgevit_status status = open_as_it_is(&session);
        CHECK(session == nullptr);
        CHECK(error.code == status);
        CHECK(error.message[0] != '\0');
        return status;
    }

    edgevit_status classify(edgevit_session* session) {
        edgevit_result results[3];
        size_t count = 3;
        return edgevit_classify(session, &image, results, &count, &error);
    }
};

std::vector<float> logits_of(edgevit_session* session) {
    std::vector<float> logits(edgevit_class_count(session));
    REQUIRE(edgevit_logits(session, logits.data(), logits.size(), nullptr) == EDGEVIT_OK);
    return logits;
}

}  // namespace

TEST_CASE("an artifact is opened, a picture classified, and the steps give the same") {
    Fixture fixture;
    const Opened session = fixture.opened();
    CHECK(edgevit_image_size(session.get()) == 8);
    CHECK(edgevit_input_size_bytes(session.get()) == 192);
    CHECK(edgevit_class_count(session.get()) == 7);
    CHECK(std::string(edgevit_label(session.get(), 6)) == "c6");
    CHECK(edgevit_label(session.get(), 7) == nullptr);
    CHECK(std::string(edgevit_backend(session.get())) == "null");

    edgevit_result results[9];
    size_t count = 9;
    REQUIRE(edgevit_classify(session.get(), &fixture.image, results, &count, &fixture.error) ==
            EDGEVIT_OK);
    CHECK(fixture.error.code == EDGEVIT_OK);
    CHECK(count == 7);
    const std::vector<float> logits = logits_of(session.get());
    for (std::size_t i = 0; i < count; ++i) {
        const auto index = static_cast<std::size_t>(results[i].class_index);
        CHECK(results[i].logit == logits[index]);
        CHECK(std::string(results[i].label) == "c" + std::to_string(index));
        CHECK((i == 0 || results[i - 1].logit >= results[i].logit));
    }

    REQUIRE(edgevit_preprocess(session.get(), &fixture.image, nullptr) == EDGEVIT_OK);
    Bytes tensor(192);
    REQUIRE(edgevit_read_input(session.get(), tensor.data(), 192, nullptr) == EDGEVIT_OK);
    REQUIRE(edgevit_invoke(session.get(), nullptr) == EDGEVIT_OK);
    CHECK(logits_of(session.get()) == logits);
    REQUIRE(edgevit_set_input(session.get(), tensor.data(), 192, nullptr) == EDGEVIT_OK);
    REQUIRE(edgevit_invoke(session.get(), nullptr) == EDGEVIT_OK);
    count = 2;
    REQUIRE(edgevit_top_k(session.get(), results, &count, nullptr) == EDGEVIT_OK);
    CHECK(count == 2);
    CHECK(logits_of(session.get()) == logits);
}

TEST_CASE("every pixel format and stride gives the tensor that the core makes of RGB") {
    Fixture fixture;
    const Opened session = fixture.opened();
    constexpr std::size_t width = 20, height = 10;
    Image rgb;
    rgb.reset(static_cast<int>(width), static_cast<int>(height));
    for (std::size_t i = 0; i < rgb.rgb.size(); ++i) {
        rgb.rgb[i] = static_cast<std::uint8_t>(i * 37);
    }
    Bytes expected(192);
    Preprocessor(load_artifact(fixture.folder.path())).run(rgb.view(), expected.data());
    for (const auto format : {EDGEVIT_RGB888, EDGEVIT_RGBA8888, EDGEVIT_BGRA8888}) {
        for (const std::size_t padding : {std::size_t{0}, std::size_t{1}, std::size_t{64}}) {
            CAPTURE(format);
            CAPTURE(padding);
            const std::size_t channels = format == EDGEVIT_RGB888 ? 3 : 4;
            const std::size_t stride = width * channels + padding;
            // The last row has no padding, so that a read beyond it is found by the sanitizer.
            Bytes pixels(stride * (height - 1) + width * channels, 0xa5);
            for (std::size_t y = 0; y < height; ++y) {
                for (std::size_t x = 0; x < width; ++x) {
                    for (std::size_t c = 0; c < 3; ++c) {
                        const std::size_t at = format == EDGEVIT_BGRA8888 ? 2 - c : c;
                        pixels[y * stride + x * channels + at] = rgb.rgb[(y * width + x) * 3 + c];
                    }
                }
            }
            const edgevit_image image = packed(pixels.data(), width, height, stride, format);
            Bytes tensor(192);
            REQUIRE(edgevit_preprocess(session.get(), &image, nullptr) == EDGEVIT_OK);
            REQUIRE(edgevit_read_input(session.get(), tensor.data(), 192, nullptr) == EDGEVIT_OK);
            CHECK(tensor == expected);
        }
    }
}

TEST_CASE("of equal logits the lower class comes first") {
    Fixture fixture;
    const Opened session = fixture.opened("scripted");
    edgevit_result results[4];
    size_t count = 4;
    REQUIRE(edgevit_classify(session.get(), &fixture.image, results, &count, nullptr) ==
            EDGEVIT_OK);
    CHECK(results[0].class_index == 1);
    CHECK(results[1].class_index == 3);
    CHECK(results[2].class_index == 6);
    CHECK(results[3].class_index == 2);
    CHECK(results[0].logit == 2.5F);  // (9 - -1) * 0.25
}

TEST_CASE("what is wrong with a folder is told") {
    Fixture fixture;
    CHECK(fixture.refusal() == EDGEVIT_BAD_INPUT);  // it is empty
    const fs::path file = fixture.folder / "manifest.json";
    const std::string good = fixture.manifest.dump();
    const auto refused = [&](const std::string& text, const std::string& part) {
        write_artifact(fixture.folder.path(), fixture.manifest);
        write_text(file, text);
        CAPTURE(text.substr(0, 60));
        CHECK(fixture.refusal() == EDGEVIT_BAD_INPUT);
        CAPTURE(fixture.error.message);
        CHECK(contains(fixture.error.message, part));
    };
    refused("", "not valid JSON");
    refused("\0\xff\xfe", "not valid JSON");
    refused(good.substr(0, good.size() / 2), "not valid JSON");
    refused(std::string(100'000, '['), "not valid JSON");
    refused("[]", "must be an object");
    const auto edited = [&](const char* key, const json& value) {
        json other = fixture.manifest;
        other[key] = value;
        return other.dump();
    };
    refused(edited("schema_version", 4), "update edgevit");
    refused(edited("kind", "edgevit-program"), "expected 'edgevit-artifact'");
    refused(edited("labels", json::array({"a"})), "labels");
    refused(edited("input", nullptr), "input must be an object");
    refused(edited("labels", {std::string("a\0b", 3), "1", "2", "3", "4", "5", "6"}), "zero byte");
    fs::remove(file);
    CHECK(fixture.refusal() == EDGEVIT_BAD_INPUT);
    fs::create_directory(file);
    CHECK(fixture.refusal() == EDGEVIT_BAD_INPUT);
    fs::remove(file);
    write_artifact(fixture.folder.path(), fixture.manifest, "another artifact");
    CHECK(fixture.refusal() == EDGEVIT_BAD_INPUT);
    CHECK(contains(fixture.error.message, "sha256"));
    fs::remove(fixture.folder / "model.bin");
    CHECK(fixture.refusal() == EDGEVIT_BAD_INPUT);
}

TEST_CASE("a message too long is cut between characters") {
    Fixture fixture;
    std::string kind;
    for (int i = 0; i < 2000; ++i) {
        kind += "\xc3\xa4";  // two bytes a letter
    }
    for (const char* shift : {"", "x"}) {
        fixture.manifest["kind"] = shift + kind;
        write_artifact(fixture.folder.path(), fixture.manifest);
        CHECK(fixture.refusal() == EDGEVIT_BAD_INPUT);
        const std::string message = fixture.error.message;
        CHECK(message.size() >= sizeof fixture.error.message - 2);
        CHECK_NOTHROW(json(message).dump());  // throws for text that is not UTF-8
    }
}

TEST_CASE("bad options are refused") {
    Fixture fixture;
    write_artifact(fixture.folder.path(), fixture.manifest);
    const std::string folder = fixture.folder.path().string();
    edgevit_session* session = nullptr;
    edgevit_options options;
    const auto status = [&] {
        return edgevit_open(folder.c_str(), &options, &session, &fixture.error);
    };
    edgevit_options_init(&options);
    options.backend = "no-such";
    CHECK(status() == EDGEVIT_BAD_INPUT);
    options.backend = "coreml";
#ifndef __APPLE__
    CHECK(status() == EDGEVIT_TOOL_MISSING);
#endif
    options.backend = "tflite", options.runtime_library = "/no/such/lib.so";
    CHECK(status() == EDGEVIT_TOOL_MISSING);
    edgevit_options_init(&options);
    options.threads = 257;
    CHECK(status() == EDGEVIT_BAD_INPUT);
    options.threads = -1;
    CHECK(status() == EDGEVIT_BAD_INPUT);
    edgevit_options_init(&options);
    options.compute_units = "gpu";
    CHECK(status() == EDGEVIT_BAD_INPUT);
    options.compute_units = "cpu";  // known, but not to the null back-end
    CHECK(status() == EDGEVIT_BAD_INPUT);
    edgevit_options_init(&options);
    options.plan_cache = folder.c_str();
    CHECK(status() == EDGEVIT_BAD_INPUT);
    for (const std::size_t size : {std::size_t{0}, sizeof options - 1, sizeof options + 8}) {
        edgevit_options_init(&options);
        options.struct_size_bytes = size;
        CHECK(status() == EDGEVIT_BAD_CALL);
    }
    const edgevit_runtime_option null_name[] = {{nullptr, "x"}}, null_value[] = {{"x", nullptr}};
    for (const edgevit_runtime_option* pair : {null_name, null_value}) {
        edgevit_options_init(&options);
        options.runtime_options = pair, options.runtime_option_count = 1;
        CHECK(status() == EDGEVIT_BAD_CALL);
    }
    options.runtime_options = nullptr;
    CHECK(status() == EDGEVIT_BAD_CALL);
    options.runtime_options = null_name, options.runtime_option_count = SIZE_MAX;
    CHECK(status() == EDGEVIT_BAD_CALL);
    CHECK(session == nullptr);
    edgevit_options_init(&options);
    options.threads = 2;
    REQUIRE(status() == EDGEVIT_OK);
    CHECK(edgevit_close(session, nullptr) == EDGEVIT_OK);
}

TEST_CASE("runtime options reach the back-end, which says what it takes") {
    Fixture fixture;
    write_artifact(fixture.folder.path(), fixture.manifest);
    const auto status = [&](const std::vector<edgevit_runtime_option>& pairs,
                            const char* compute_units = nullptr) {
        edgevit_session* session = nullptr;
        edgevit_options options;
        edgevit_options_init(&options);
        options.backend = "scripted";
        options.compute_units = compute_units;
        options.runtime_options = pairs.data();
        options.runtime_option_count = pairs.size();
        const edgevit_status code =
            edgevit_open(fixture.folder.path().c_str(), &options, &session, &fixture.error);
        edgevit_close(session, nullptr);
        return code;
    };
    REQUIRE(status({{"mode", "fast"}, {"size", "-3"}, {"folder", "any=thing"}}) == EDGEVIT_OK);
    CHECK(scripted_options ==
          RuntimeOptions{{"folder", "any=thing"}, {"mode", "fast"}, {"size", "-3"}});
    CHECK(runtime_integer(scripted_options, "size", 5) == -3);
    CHECK(runtime_integer({}, "size", 5) == 5);
    CHECK(runtime_option({}, "mode", "slow") == "slow");
    REQUIRE(status({}) == EDGEVIT_OK);
    CHECK(scripted_options.empty());
    const auto refused = [&](const std::vector<edgevit_runtime_option>& pairs, const char* part) {
        CHECK(status(pairs) == EDGEVIT_BAD_INPUT);
        CAPTURE(fixture.error.message);
        CHECK(contains(fixture.error.message, part));
    };
    refused({{"speed", "1"}},
            "the scripted back-end takes no runtime option 'speed'; it takes mode=fast|slow, "
            "size=-8..8, folder=TEXT");
    refused({{"mode", "Fast"}}, "mode is 'Fast'; the scripted back-end takes mode=fast|slow");
    refused({{"size", "9"}}, "takes size=-8..8");
    refused({{"size", "1 "}}, "takes size=-8..8");
    refused({{"size", "+1"}}, "takes size=-8..8");
    refused({{"folder", ""}}, "takes folder=TEXT");
    refused({{"mode", "fast"}, {"mode", "fast"}}, "'mode' is given twice");
    CHECK(status({{"compute_units", "cpu"}}, "cpu") == EDGEVIT_BAD_INPUT);
    CHECK(contains(fixture.error.message, "'compute_units' is given twice"));
}

TEST_CASE("the options of a caller with the first header are taken") {
    Fixture fixture;
    write_artifact(fixture.folder.path(), fixture.manifest);
    edgevit_options options;
    edgevit_options_init(&options);
    options.struct_size_bytes = offsetof(edgevit_options, runtime_options);
    options.threads = 3;
    options.runtime_option_count = 7;  // memory that is not the caller's
    edgevit_session* session = nullptr;
    CHECK(edgevit_open(fixture.folder.path().c_str(), &options, &session, &fixture.error) ==
          EDGEVIT_OK);
    CHECK(edgevit_close(session, nullptr) == EDGEVIT_OK);
}

TEST_CASE("a picture that cannot be used is refused, and the session goes on") {
    Fixture fixture;
    const Opened session = fixture.opened();
    const edgevit_image good = fixture.image;
    const auto refused = [&](edgevit_status code, const char* part) {
        CHECK(fixture.classify(session.get()) == code);
        CAPTURE(fixture.error.message);
        CHECK(contains(fixture.error.message, part));
        CHECK(edgevit_invoke(session.get(), nullptr) == EDGEVIT_BAD_CALL);  // no input is left
        fixture.image = good;
        CHECK(fixture.classify(session.get()) == EDGEVIT_OK);
    };
    fixture.image.width = 0;
    refused(EDGEVIT_BAD_INPUT, "0x10");
    fixture.image.height = 0;
    refused(EDGEVIT_BAD_INPUT, "20x0");
    fixture.image.width = fixture.image.height = 30000,
    fixture.image.planes[0].stride_bytes = 120000;
    refused(EDGEVIT_BAD_INPUT, "30000x30000");
    fixture.image.width = fixture.image.height = SIZE_MAX;
    refused(EDGEVIT_BAD_INPUT, "64 million");
    fixture.image.width = SIZE_MAX / 4 + 2, fixture.image.height = 1;  // times 4 wraps around
    refused(EDGEVIT_BAD_INPUT, "64 million");
    fixture.image.planes[0].stride_bytes = 79;
    refused(EDGEVIT_BAD_CALL, "stride is 79");
    fixture.image.planes[0].stride_bytes = 0;
    refused(EDGEVIT_BAD_CALL, "stride is 0");
    fixture.image.planes[0].stride_bytes = (std::size_t{1} << 30) + 1;
    refused(EDGEVIT_BAD_CALL, "1 GiB");
    fixture.image.planes[0].stride_bytes = SIZE_MAX;
    refused(EDGEVIT_BAD_CALL, "1 GiB");
    fixture.image.format = 7;
    refused(EDGEVIT_BAD_CALL, "format is 7");
    fixture.image.planes[0].data = nullptr;
    refused(EDGEVIT_BAD_CALL, "pixels are null");
}

TEST_CASE("a picture too thin to resize is refused") {
    Fixture fixture;
    fixture.manifest["preprocessing"]["image_size"] = 512;
    fixture.manifest["preprocessing"]["resize_size"] = 512;
    fixture.manifest["input"]["shape"] = {1, 512, 512, 3};
    const Opened session = fixture.opened();
    const Bytes line(3 * 4'000'000);
    fixture.image = packed(line.data(), 4'000'000, 1, line.size(), EDGEVIT_RGB888);
    CHECK(fixture.classify(session.get()) == EDGEVIT_BAD_INPUT);
    CHECK(contains(fixture.error.message, "4000000x1"));
}

TEST_CASE("null pointers and wrong sizes end with a code") {
    Fixture fixture;
    const Opened session = fixture.opened();
    edgevit_error* const error = &fixture.error;
    edgevit_session* other = session.get();
    edgevit_result result;
    size_t count = 1;
    float logit = 0;
    Bytes tensor(192);
    CHECK(edgevit_open(nullptr, nullptr, &other, error) == EDGEVIT_BAD_CALL);
    CHECK(other == nullptr);
    CHECK(edgevit_open("x", nullptr, nullptr, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_classify(nullptr, &fixture.image, &result, &count, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_classify(session.get(), nullptr, &result, &count, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_classify(session.get(), &fixture.image, nullptr, &count, error) ==
          EDGEVIT_BAD_CALL);
    CHECK(edgevit_classify(session.get(), &fixture.image, &result, nullptr, error) ==
          EDGEVIT_BAD_CALL);
    count = 0;
    CHECK(edgevit_classify(session.get(), &fixture.image, &result, &count, error) ==
          EDGEVIT_BAD_CALL);
    count = 1;
    CHECK(edgevit_preprocess(nullptr, &fixture.image, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_preprocess(session.get(), nullptr, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_set_input(nullptr, tensor.data(), 192, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_set_input(session.get(), nullptr, 192, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_set_input(session.get(), tensor.data(), 191, error) == EDGEVIT_BAD_CALL);
    CHECK(contains(error->message, "takes 192"));
    CHECK(edgevit_invoke(nullptr, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_logits(nullptr, &logit, 1, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_top_k(nullptr, &result, &count, error) == EDGEVIT_BAD_CALL);

    // Steps out of order.
    CHECK(edgevit_read_input(session.get(), tensor.data(), 192, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_invoke(session.get(), error) == EDGEVIT_BAD_CALL);
    REQUIRE(edgevit_preprocess(session.get(), &fixture.image, error) == EDGEVIT_OK);
    CHECK(edgevit_logits(session.get(), &logit, 1, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_top_k(session.get(), &result, &count, error) == EDGEVIT_BAD_CALL);
    REQUIRE(edgevit_invoke(session.get(), error) == EDGEVIT_OK);
    CHECK(edgevit_logits(session.get(), nullptr, 7, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_logits(session.get(), &logit, 1, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_read_input(session.get(), nullptr, 192, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_read_input(session.get(), tensor.data(), 193, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_top_k(session.get(), &result, &count, error) == EDGEVIT_OK);

    CHECK(edgevit_image_size(nullptr) == 0);
    CHECK(edgevit_input_size_bytes(nullptr) == 0);
    CHECK(edgevit_class_count(nullptr) == 0);
    CHECK(edgevit_label(nullptr, 0) == nullptr);
    CHECK(edgevit_backend(nullptr) == nullptr);
    CHECK(edgevit_close(nullptr, error) == EDGEVIT_OK);
    edgevit_options_init(nullptr);
    CHECK(edgevit_invoke(nullptr, nullptr) == EDGEVIT_BAD_CALL);
}

TEST_CASE("whatever a runtime throws becomes a code, and the session goes on") {
    Fixture fixture;
    const Opened session = fixture.opened("scripted");
    on_invoke = [] { throw Error("the runtime's own words"); };
    CHECK(fixture.classify(session.get()) == EDGEVIT_FAILED);
    CHECK(std::string(fixture.error.message) == "the runtime's own words");
    CHECK(edgevit_logits(session.get(), nullptr, 0, nullptr) == EDGEVIT_BAD_CALL);
    on_invoke = [] { throw std::bad_alloc(); };
    CHECK(fixture.classify(session.get()) == EDGEVIT_OUT_OF_MEMORY);
    on_invoke = [] { throw std::out_of_range("index"); };
    CHECK(fixture.classify(session.get()) == EDGEVIT_FAILED);
    on_invoke = [] { throw 7; };
    CHECK(fixture.classify(session.get()) == EDGEVIT_FAILED);
    on_invoke = nullptr;
    CHECK(fixture.classify(session.get()) == EDGEVIT_OK);
}

TEST_CASE("logits that are not finite are an error") {
    Fixture fixture;
    fixture.manifest["outputs"][0]["dtype"] = "float32";
    fixture.manifest["outputs"][0]["scale"] = fixture.manifest["outputs"][0]["zero_point"] =
        nullptr;
    const Opened session = fixture.opened("scripted");
    scripted_answer.assign(28, 0xff);
    CHECK(fixture.classify(session.get()) == EDGEVIT_BAD_INPUT);
    CHECK(contains(fixture.error.message, "NaN"));
}

TEST_CASE("a second thread on a session in use gets BUSY, in every function") {
    Fixture fixture;
    Opened session = fixture.opened("scripted");
    std::mutex mutex;
    std::condition_variable changed;
    bool is_inside = false, may_leave = false;
    on_invoke = [&] {
        std::unique_lock<std::mutex> lock(mutex);
        is_inside = true;
        changed.notify_all();
        changed.wait(lock, [&] { return may_leave; });
    };
    std::atomic<edgevit_status> first{-1};
    std::thread other([&] {
        edgevit_result result;
        size_t count = 1;
        first = edgevit_classify(session.get(), &fixture.image, &result, &count, nullptr);
    });
    {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return is_inside; });
    }
    edgevit_result result;
    size_t count = 1;
    float logits[7];
    Bytes tensor(192);
    edgevit_session* held = session.get();
    CHECK(edgevit_classify(held, &fixture.image, &result, &count, &fixture.error) == EDGEVIT_BUSY);
    CHECK(contains(fixture.error.message, "another call"));
    CHECK(edgevit_preprocess(held, &fixture.image, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_set_input(held, tensor.data(), 192, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_read_input(held, tensor.data(), 192, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_invoke(held, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_logits(held, logits, 7, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_top_k(held, &result, &count, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_close(held, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_output(held, 0, logits, 7, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_output_bytes(held, 0, tensor.data(), 7, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_probabilities(held, logits, 7, nullptr) == EDGEVIT_BUSY);
    CHECK(edgevit_class_count(held) == 7);  // facts may be read at any time
    edgevit_tensor info = {};
    info.struct_size_bytes = sizeof info;
    CHECK(edgevit_output_info(held, 0, &info, nullptr) == EDGEVIT_OK);
    {
        const std::lock_guard<std::mutex> lock(mutex);
        may_leave = true;
    }
    changed.notify_all();
    other.join();
    CHECK(first == EDGEVIT_OK);
    on_invoke = nullptr;
    CHECK(fixture.classify(held) == EDGEVIT_OK);
}

TEST_CASE("threads that fight for a session get whole answers or BUSY") {
    Fixture fixture;
    const Opened session = fixture.opened();
    REQUIRE(fixture.classify(session.get()) == EDGEVIT_OK);
    const std::vector<float> expected = logits_of(session.get());
    std::atomic<int> ok{0}, busy{0}, wrong{0};
    const auto work = [&] {
        for (int i = 0; i < 2000; ++i) {
            edgevit_result results[7];
            size_t count = 7;
            const edgevit_status status =
                edgevit_classify(session.get(), &fixture.image, results, &count, nullptr);
            ok += status == EDGEVIT_OK ? 1 : 0;
            busy += status == EDGEVIT_BUSY ? 1 : 0;
            for (std::size_t k = 0; status == EDGEVIT_OK && k < 7; ++k) {
                const auto index = static_cast<std::size_t>(results[k].class_index);
                wrong += results[k].logit == expected[index] ? 0 : 1;
            }
        }
    };
    std::thread first(work), second(work);
    first.join(), second.join();
    CHECK(ok + busy == 4000);
    CHECK(ok > 0);
    CHECK(wrong == 0);
}

TEST_CASE("every output is handed over, by index and by name") {
    Fixture fixture;
    fixture.manifest =
        with_outputs(fixture.manifest, {output_json("logits", {1, 7}, "int8", 0.25, -1),
                                        output_json("map", {1, 2, 3}, "float16"),
                                        output_json("step", {1}, "uint8", 0.5, 3)});
    const Opened session = fixture.opened("scripted");
    edgevit_session* const open = session.get();
    edgevit_error* const error = &fixture.error;
    CHECK(edgevit_output_count(open) == 3);
    CHECK(edgevit_class_count(open) == 7);
    edgevit_tensor tensor = {};
    tensor.struct_size_bytes = sizeof tensor;
    REQUIRE(edgevit_output_info(open, 1, &tensor, error) == EDGEVIT_OK);
    CHECK(std::string(tensor.name) == "map");
    CHECK(tensor.rank == 3);
    CHECK((tensor.shape[0] == 1 && tensor.shape[1] == 2 && tensor.shape[2] == 3));
    CHECK(tensor.shape[3] == 0);
    CHECK(tensor.element_count == 6);
    CHECK(tensor.size_bytes == 12);
    CHECK(tensor.dtype == EDGEVIT_FLOAT16);
    CHECK((tensor.scale == 0 && tensor.zero_point == 0));
    REQUIRE(edgevit_output_info(open, 2, &tensor, error) == EDGEVIT_OK);
    CHECK(tensor.rank == 1);
    CHECK((tensor.scale == 0.5F && tensor.zero_point == 3));
    REQUIRE(edgevit_input_info(open, &tensor, error) == EDGEVIT_OK);
    CHECK(std::string(tensor.name) == "input");
    CHECK(tensor.size_bytes == edgevit_input_size_bytes(open));
    size_t index = 9;
    REQUIRE(edgevit_find_output(open, "step", &index, error) == EDGEVIT_OK);
    CHECK(index == 2);
    CHECK(edgevit_find_output(open, "stop", &index, error) == EDGEVIT_BAD_INPUT);
    CHECK(contains(error->message, "has no output 'stop'; it has 'logits', 'map', 'step'"));

    float reals[7];
    std::uint8_t bytes[12];
    CHECK(edgevit_output(open, 0, reals, 7, error) == EDGEVIT_BAD_CALL);  // not run yet
    REQUIRE(edgevit_preprocess(open, &fixture.image, error) == EDGEVIT_OK);
    CHECK(edgevit_output(open, 0, reals, 7, error) == EDGEVIT_BAD_CALL);
    REQUIRE(edgevit_invoke(open, error) == EDGEVIT_OK);
    outputs_read = 0;
    REQUIRE(edgevit_output(open, 0, reals, 7, error) == EDGEVIT_OK);
    CHECK((reals[0] == 0.5F && reals[1] == 2.5F && reals[4] == 0.25F));
    REQUIRE(edgevit_output(open, 0, reals, 7, error) == EDGEVIT_OK);
    CHECK(logits_of(open).front() == 0.5F);
    CHECK(outputs_read == 1);  // each is fetched once, and only when it is asked for
    REQUIRE(edgevit_output_bytes(open, 1, bytes, 12, error) == EDGEVIT_OK);
    CHECK((bytes[0] == 1 && bytes[11] == 1));
    REQUIRE(edgevit_output(open, 1, reals, 6, error) == EDGEVIT_OK);
    CHECK(reals[5] == half_to_float(0x0101));
    REQUIRE(edgevit_output(open, 2, reals, 1, error) == EDGEVIT_OK);
    CHECK(reals[0] == -1.5F);  // (0 - 3) * 0.5
    CHECK(outputs_read == 3);

    for (const size_t wrong : {size_t{0}, size_t{6}, size_t{8}, SIZE_MAX}) {
        CHECK(edgevit_output(open, 0, reals, wrong, error) == EDGEVIT_BAD_CALL);
        CHECK(edgevit_output_bytes(open, 0, bytes, wrong, error) == EDGEVIT_BAD_CALL);
        tensor.struct_size_bytes = wrong;
        CHECK(edgevit_output_info(open, 0, &tensor, error) == EDGEVIT_BAD_CALL);
        CHECK(edgevit_input_info(open, &tensor, error) == EDGEVIT_BAD_CALL);
    }
    tensor.struct_size_bytes = sizeof tensor;
    for (const size_t none : {size_t{3}, SIZE_MAX}) {
        CHECK(edgevit_output(open, none, reals, 7, error) == EDGEVIT_BAD_CALL);
        CHECK(edgevit_output_bytes(open, none, bytes, 7, error) == EDGEVIT_BAD_CALL);
        CHECK(edgevit_output_info(open, none, &tensor, error) == EDGEVIT_BAD_CALL);
    }
    CHECK(edgevit_output(open, 0, nullptr, 7, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_output_bytes(open, 0, nullptr, 7, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_output_info(open, 0, nullptr, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_find_output(open, nullptr, &index, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_find_output(open, "map", nullptr, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_output(nullptr, 0, reals, 7, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_output_bytes(nullptr, 0, bytes, 7, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_output_info(nullptr, 0, &tensor, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_input_info(nullptr, &tensor, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_find_output(nullptr, "map", &index, error) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_output_count(nullptr) == 0);
}

TEST_CASE("an artifact of another task has outputs and no classes") {
    Fixture fixture;
    fixture.manifest = with_outputs(fixture.manifest, {output_json("boxes", {1, 5, 4}, "float32")});
    fixture.manifest["task"] = "detection";
    const Opened session = fixture.opened();
    edgevit_session* const open = session.get();
    CHECK(edgevit_class_count(open) == 0);
    CHECK(edgevit_label(open, 0) == nullptr);
    CHECK(fixture.classify(open) == EDGEVIT_BAD_INPUT);
    CHECK(contains(fixture.error.message, "its task is 'detection', which has no classes"));
    edgevit_result result;
    size_t count = 1;
    float reals[20];
    CHECK(edgevit_top_k(open, &result, &count, nullptr) == EDGEVIT_BAD_INPUT);
    CHECK(edgevit_logits(open, reals, 20, nullptr) == EDGEVIT_BAD_INPUT);
    CHECK(edgevit_probabilities(open, reals, 20, nullptr) == EDGEVIT_BAD_INPUT);
    REQUIRE(edgevit_preprocess(open, &fixture.image, nullptr) == EDGEVIT_OK);
    REQUIRE(edgevit_invoke(open, nullptr) == EDGEVIT_OK);
    CHECK(edgevit_output(open, 0, reals, 20, nullptr) == EDGEVIT_OK);
}

TEST_CASE("probabilities are the softmax of the logits, and a classifier's own as they are") {
    Fixture fixture;
    float found[7];
    {
        const Opened session = fixture.opened("scripted");
        REQUIRE(fixture.classify(session.get()) == EDGEVIT_OK);
        REQUIRE(edgevit_probabilities(session.get(), found, 7, nullptr) == EDGEVIT_OK);
        const std::vector<float> logits = logits_of(session.get());
        double total = 0;
        for (const float logit : logits) {
            total += std::exp(static_cast<double>(logit));
        }
        for (std::size_t i = 0; i < 7; ++i) {
            const auto expected =
                static_cast<float>(std::exp(static_cast<double>(logits[i])) / total);
            CHECK(found[i] == doctest::Approx(expected));
        }
        CHECK(edgevit_probabilities(session.get(), found, 6, nullptr) == EDGEVIT_BAD_CALL);
        CHECK(edgevit_probabilities(session.get(), nullptr, 7, nullptr) == EDGEVIT_BAD_CALL);
        CHECK(edgevit_probabilities(nullptr, found, 7, nullptr) == EDGEVIT_BAD_CALL);
    }
}

TEST_CASE("an artifact that answers with probabilities gets no second softmax, and has no logits") {
    for (const bool is_classifier : {true, false}) {
        Fixture fixture;
        if (is_classifier) {
            fixture.manifest["options"] = {{"output_type", "classifier"}};
        } else {
            fixture.manifest["outputs"][0]["meaning"] = "probabilities";
        }
        const Opened session = fixture.opened("scripted");
        CHECK(edgevit_answers_probabilities(session.get()) == 1);
        edgevit_result best;
        size_t count = 1;
        REQUIRE(edgevit_classify(session.get(), &fixture.image, &best, &count, nullptr) ==
                EDGEVIT_OK);
        CHECK(best.class_index == 1);
        CHECK(best.probability == 2.5F);
        CHECK(std::isnan(best.logit));
        float found[7];
        REQUIRE(edgevit_probabilities(session.get(), found, 7, nullptr) == EDGEVIT_OK);
        CHECK(found[1] == 2.5F);
        CHECK(edgevit_logits(session.get(), found, 7, &fixture.error) == EDGEVIT_BAD_INPUT);
        CHECK(contains(fixture.error.message, "has no logits"));
    }
    Fixture fixture;
    CHECK(edgevit_answers_probabilities(fixture.opened().get()) == 0);
    CHECK(edgevit_answers_probabilities(nullptr) == 0);
    fixture.manifest["outputs"][0]["meaning"] = "odds";
    write_artifact(fixture.folder.path(), fixture.manifest);
    CHECK(fixture.refusal() == EDGEVIT_BAD_INPUT);
    CHECK(contains(fixture.error.message, "meaning is 'odds'"));
}

TEST_CASE("a result has the logit and the probability, and its reserved fields are 0") {
    Fixture fixture;
    const Opened session = fixture.opened("scripted");
    edgevit_result best;
    std::memset(&best, 0xff, sizeof best);
    size_t count = 1;
    REQUIRE(edgevit_classify(session.get(), &fixture.image, &best, &count, nullptr) == EDGEVIT_OK);
    float probabilities[7];
    REQUIRE(edgevit_probabilities(session.get(), probabilities, 7, nullptr) == EDGEVIT_OK);
    CHECK(best.probability == probabilities[best.class_index]);
    CHECK((best.reserved == 0 && best.reserved_too[0] == 0 && best.reserved_too[1] == 0));
}

TEST_CASE("opening warms up and tells the log, and leaves no input behind") {
    Fixture fixture;
    write_artifact(fixture.folder.path(), fixture.manifest);
    edgevit_options options;
    edgevit_options_init(&options);
    options.backend = "scripted";
    options.warmup_runs = 3;
    std::vector<std::string> lines;
    options.log_user = &lines;
    options.log = [](void* user, edgevit_log_level level, const char* message) {
        CHECK(level == EDGEVIT_LOG_INFO);
        static_cast<std::vector<std::string>*>(user)->push_back(message);
    };
    int runs = 0;
    on_invoke = [&] { ++runs; };
    edgevit_session* session = nullptr;
    const auto status = [&] {
        return edgevit_open(fixture.folder.path().c_str(), &options, &session, &fixture.error);
    };
    REQUIRE(status() == EDGEVIT_OK);
    CHECK(runs == 3);
    REQUIRE(lines.size() == 2);
    CHECK(contains(lines[0], "with the scripted back-end on cpu"));
    CHECK(contains(lines[1], "3 warm-up runs took"));
    CHECK(std::string(edgevit_accelerator(session)) == "cpu");
    CHECK(edgevit_accelerator(nullptr) == nullptr);
    CHECK(edgevit_invoke(session, nullptr) == EDGEVIT_BAD_CALL);
    CHECK(edgevit_close(session, nullptr) == EDGEVIT_OK);
    for (const std::int32_t wrong : {-1, 100'001}) {
        options.warmup_runs = wrong;
        CHECK(status() == EDGEVIT_BAD_INPUT);
        CHECK(contains(fixture.error.message, "warmup_runs"));
    }
    options.warmup_runs = 0;
    options.accelerator = "gpu";  // not an option of this back-end
    CHECK(status() == EDGEVIT_BAD_INPUT);
    CHECK(contains(fixture.error.message, "takes no runtime option 'accelerator'"));
    on_invoke = [] { throw Error("the first run fails"); };
    edgevit_options_init(&options);
    options.backend = "scripted";
    options.warmup_runs = 1;
    CHECK(status() == EDGEVIT_FAILED);
    CHECK(session == nullptr);
}

TEST_CASE("a description of an older header is filled as far as it goes") {
    Fixture fixture;
    const Opened session = fixture.opened();
    edgevit_tensor tensor;
    std::memset(&tensor, 0x5a, sizeof tensor);
    tensor.struct_size_bytes = offsetof(edgevit_tensor, reserved);
    REQUIRE(edgevit_output_info(session.get(), 0, &tensor, &fixture.error) == EDGEVIT_OK);
    CHECK(tensor.element_count == 7);
    CHECK(tensor.struct_size_bytes == offsetof(edgevit_tensor, reserved));
    CHECK(tensor.reserved[0] == 0x5a5a5a5a);  // memory that is not the caller's
}

TEST_CASE("version and status have names") {
    CHECK(std::string(edgevit_version()) == EDGEVIT_TEST_VERSION);
    for (edgevit_status status = EDGEVIT_OK; status <= EDGEVIT_OUT_OF_MEMORY; ++status) {
        CHECK(contains(edgevit_status_name(status), "EDGEVIT_"));
    }
    CHECK(std::string(edgevit_status_name(99)) == "unknown");
}
