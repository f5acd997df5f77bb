// The C API over the null back-end, and over back-ends that wait or throw.
#include "edgevit/edgevit.h"

#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <numeric>
#include <thread>

#include "backend.h"
#include "core/preprocess.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

// A back-end whose answer is the same for every input, and whose invoke() does what a test says.
std::function<void()> on_invoke;
Bytes scripted_answer;

class ScriptedBackend : public Backend {
  public:
    explicit ScriptedBackend(const Manifest& manifest)
        : input_(manifest.input), output_(manifest.output()) {}
    std::vector<TensorSpec> inputs() const override { return {input_}; }
    std::vector<TensorSpec> outputs() const override { return {output_}; }
    void set_input(ByteView bytes) override { CHECK(bytes.size == input_.size_bytes()); }
    void invoke() override {
        if (on_invoke) {
            on_invoke();
        }
    }
    void get_output(std::uint8_t* out, std::size_t size_bytes) override {
        REQUIRE(size_bytes == scripted_answer.size());
        std::memcpy(out, scripted_answer.data(), size_bytes);
    }
    RuntimeFacts facts() const override { return {}; }
    OpReport profile(ByteView, int) override { return {}; }

  private:
    TensorSpec input_;
    TensorSpec output_;
};

std::unique_ptr<Backend> open_scripted(const Manifest& manifest, const BackendOptions&) {
    return std::make_unique<ScriptedBackend>(manifest);
}

[[maybe_unused]] const bool scripted = register_backend("scripted", open_scripted);

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
    edgevit_image image = {pixels.data(), 20, 10, 80, EDGEVIT_RGBA8888};

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
            const edgevit_image image = {pixels.data(), width, height, stride, format};
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
    refused(edited("schema_version", 3), "update edgevit");
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
    CHECK(session == nullptr);
    edgevit_options_init(&options);
    options.threads = 2;
    REQUIRE(status() == EDGEVIT_OK);
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
    fixture.image.width = fixture.image.height = 30000, fixture.image.stride_bytes = 120000;
    refused(EDGEVIT_BAD_INPUT, "30000x30000");
    fixture.image.width = fixture.image.height = SIZE_MAX;
    refused(EDGEVIT_BAD_INPUT, "64 million");
    fixture.image.width = SIZE_MAX / 4 + 2, fixture.image.height = 1;  // times 4 wraps around
    refused(EDGEVIT_BAD_INPUT, "64 million");
    fixture.image.stride_bytes = 79;
    refused(EDGEVIT_BAD_CALL, "stride is 79");
    fixture.image.stride_bytes = 0;
    refused(EDGEVIT_BAD_CALL, "stride is 0");
    fixture.image.stride_bytes = (std::size_t{1} << 30) + 1;
    refused(EDGEVIT_BAD_CALL, "1 GiB");
    fixture.image.stride_bytes = SIZE_MAX;
    refused(EDGEVIT_BAD_CALL, "1 GiB");
    fixture.image.format = 3;
    refused(EDGEVIT_BAD_CALL, "format is 3");
    fixture.image.pixels = nullptr;
    refused(EDGEVIT_BAD_CALL, "pixels are null");
}

TEST_CASE("a picture too thin to resize is refused") {
    Fixture fixture;
    fixture.manifest["preprocessing"]["image_size"] = 512;
    fixture.manifest["preprocessing"]["resize_size"] = 512;
    fixture.manifest["input"]["shape"] = {1, 512, 512, 3};
    const Opened session = fixture.opened();
    const Bytes line(3 * 4'000'000);
    fixture.image = {line.data(), 4'000'000, 1, line.size(), EDGEVIT_RGB888};
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
    CHECK(edgevit_class_count(held) == 7);  // facts may be read at any time
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

TEST_CASE("version and status have names") {
    CHECK(std::string(edgevit_version()) == EDGEVIT_TEST_VERSION);
    for (edgevit_status status = EDGEVIT_OK; status <= EDGEVIT_OUT_OF_MEMORY; ++status) {
        CHECK(contains(edgevit_status_name(status), "EDGEVIT_"));
    }
    CHECK(std::string(edgevit_status_name(99)) == "unknown");
}
