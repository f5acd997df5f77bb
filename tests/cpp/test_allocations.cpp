// That a frame allocates nothing after the first of its size: every malloc of the process is
// counted, the C++ library's and the runtime's included. And how much a thin picture takes.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>

#include "core/preprocess.h"
#include "edgevit/edgevit.h"
#include "session.h"
#include "support.h"

namespace {

std::atomic<long> allocations{0};
std::atomic<std::size_t> allocated_bytes{0};  // freed ones, too

void count(std::size_t size) {
    ++allocations;
    allocated_bytes += size;
}

}  // namespace

#if defined(__SANITIZE_ADDRESS__)
// The sanitizer's own function; g++ comes without the header that declares it.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*,
                                                                           std::size_t),
                                                         void (*on_free)(const volatile void*));
namespace {
[[maybe_unused]] const int hooked = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t size) { count(size); }, [](const volatile void*) {});
}  // namespace
#else
// glibc's own functions under other names.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
    ::count(size);
    return __libc_malloc(size);
}
void* calloc(std::size_t items, std::size_t size) {
    ::count(items * size);
    return __libc_calloc(items, size);
}
void* realloc(void* memory, std::size_t size) {
    ::count(size);
    return __libc_realloc(memory, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
    ::count(size);
    return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
    ::count(size);
    *memory = __libc_memalign(alignment, size);
    return *memory == nullptr ? 12 : 0;  // ENOMEM
}
}
#endif

using namespace edgevit;
using namespace edgevit::test;

namespace {

// Allocations while `action` runs.
template <typename Action>
long counted(const Action& action) {
    const long before = allocations;
    action();
    return allocations - before;
}

struct Shot {
    Bytes pixels;
    edgevit_image image;

    Shot(std::size_t width, std::size_t height, edgevit_pixel_format format)
        : pixels(width * height * 4) {
        edgevit_image_init(&image);
        image.width = width, image.height = height, image.format = format;
        image.planes[0] = {pixels.data(), width * 4, 0};
        for (std::size_t i = 1; i < 3; ++i) {  // half the sides fit into the same memory
            image.planes[i] = {pixels.data(), (width + 1) / 2 * 2, 0};
        }
        image.rotation_degrees = format >= EDGEVIT_NV12 ? 90 : 0;
    }
};

edgevit_session* open(const fs::path& folder) {
    edgevit_error error;
    edgevit_session* session = nullptr;
    const edgevit_status status = edgevit_open(folder.c_str(), nullptr, &session, &error);
    INFO(error.message);
    REQUIRE(status == EDGEVIT_OK);
    return session;
}

void classify(edgevit_session* session, const Shot& frame) {
    edgevit_result results[3];
    size_t count = 3;
    edgevit_error error;
    if (edgevit_classify(session, &frame.image, results, &count, &error) != EDGEVIT_OK) {
        FAIL(error.message);
    }
}

}  // namespace

TEST_CASE("the counter counts") {
    CHECK(counted([] { std::vector<int>(1000).shrink_to_fit(); }) >= 1);
    CHECK(counted([] {}) == 0);
}

TEST_CASE("with the null back-end a frame of a size seen before allocates nothing") {
    const TemporaryFolder folder;
    write_artifact(folder.path(), manifest_json(1000));
    edgevit_session* session = open(folder.path());
    const Shot frames[] = {{31, 17, EDGEVIT_RGBA8888}, {64, 64, EDGEVIT_BGRA8888},
                           {8, 8, EDGEVIT_RGB888},     {9, 200, EDGEVIT_RGBA8888},
                           {30, 21, EDGEVIT_NV21},     {31, 17, EDGEVIT_I420}};
    CHECK(counted([&] {
              for (const Shot& frame : frames) {
                  classify(session, frame);
              }
          }) > 0);
    for (int round = 0; round < 3; ++round) {
        for (const Shot& frame : frames) {
            CAPTURE(frame.image.width);
            CHECK(counted([&] { classify(session, frame); }) == 0);
        }
    }
    CHECK(edgevit_close(session, nullptr) == EDGEVIT_OK);
}

TEST_CASE("a thin, very long picture takes memory for what the crop keeps, not for its length") {
    json document = manifest_json(3);
    document["input"]["shape"] = {1, 64, 64, 3};
    document["preprocessing"]["image_size"] = document["preprocessing"]["resize_size"] = 64;
    const Manifest manifest = parse_manifest(document.dump(), "test");
    Bytes input(manifest.input.size_bytes());
    for (const Size size : {Size{2, 30'000}, Size{30'000, 2}}) {
        const Bytes pixels(static_cast<std::size_t>(size.width * size.height) * 3, 200);
        const ImageView picture = {pixels.data(), size.width, size.height,
                                   static_cast<std::size_t>(size.width) * 3};
        Preprocessor preprocessor(manifest);
        const std::size_t before = allocated_bytes;
        preprocessor.run(picture, input.data());
        // The whole of it would be 64 x 960000 pixels, 184 MB.
        const Size whole = resized(size.width, size.height, manifest.preprocessing);
        CHECK(whole.width * whole.height == 64 * 960'000);
        CHECK(allocated_bytes - before < 100'000);
        CHECK(input == Bytes(input.size(), 200));
    }
}

TEST_CASE("with LiteRT what a frame allocates is what the bare runtime call allocates") {
    if (std::getenv("EDGEVIT_LITERT_LIB") == nullptr) {
        MESSAGE("skipped: EDGEVIT_LITERT_LIB names no library");
        return;
    }
    const TemporaryFolder folder;
    const std::string model = read_text(EDGEVIT_TEST_DATA "/tiny.tflite");
    write_artifact(folder.path(), tiny_manifest(), model);
    edgevit_session* session = open(folder.path());
    const Shot frame(31, 17, EDGEVIT_RGBA8888);
    for (int i = 0; i < 3; ++i) {
        classify(session, frame);
    }
    edgevit_status status = EDGEVIT_FAILED;
    const long bare = counted([&] { status = edgevit_invoke(session, nullptr); });
    CHECK(status == EDGEVIT_OK);
    const long whole = counted([&] { classify(session, frame); });
    MESSAGE("allocations of LiteRT itself in one inference: " << bare);
    CHECK(whole == bare);
    CHECK(edgevit_close(session, nullptr) == EDGEVIT_OK);
}
