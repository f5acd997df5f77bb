// What libedgevit adds to the runtime's own call: overhead ARTIFACT RUNTIME_LIBRARY PAIRS.
//
// Each pair times the bare call and the same inference through the C API, one after the other on
// one session, the first in turn. Through the C API it is set_input, invoke and top_k of 5, with
// the tensor ready; then, for comparison, classify() of pictures, which also preprocesses them.
// Prints JSON.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "edgevit/edgevit.h"
#include "handle.h"

namespace {

using Clock = std::chrono::steady_clock;

edgevit_error error;

void check(edgevit_status status) {
    if (status != EDGEVIT_OK) {
        std::fprintf(stderr, "edgevit-overhead: %s\n", error.message);
        std::exit(1);
    }
}

template <typename Action>
double timed_us(const Action& action) {
    const Clock::time_point start = Clock::now();
    action();
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double quantile(std::vector<double> values, double part) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(part * static_cast<double>(values.size() - 1))];
}

void print(const char* name, const std::vector<double>& values, const char* end) {
    std::printf("  \"%s\": {\"p25\": %.6g, \"median\": %.6g, \"p75\": %.6g}%s\n", name,
                quantile(values, 0.25), quantile(values, 0.5), quantile(values, 0.75), end);
}

edgevit_image picture(const std::uint8_t* pixels, std::size_t width, std::size_t height,
                      std::size_t pixel_bytes, edgevit_pixel_format format) {
    edgevit_image image;
    edgevit_image_init(&image);
    image.width = width, image.height = height, image.format = format;
    image.planes[0].data = pixels, image.planes[0].stride_bytes = width * pixel_bytes;
    return image;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: edgevit-overhead ARTIFACT RUNTIME_LIBRARY PAIRS\n");
        return 2;
    }
    edgevit_options options;
    edgevit_options_init(&options);
    options.runtime_library = argv[2];
    edgevit_session* session = nullptr;
    check(edgevit_open(argv[1], &options, &session, &error));
    edgevit::Backend& backend = session->session.backend();

    const std::size_t side = edgevit_image_size(session);
    const edgevit::Bytes pixels(640 * 480 * 4 + side * side * 3, 0x5a);
    const edgevit_image square = picture(pixels.data(), side, side, 3, EDGEVIT_RGB888);
    const edgevit_image camera = picture(pixels.data(), 640, 480, 4, EDGEVIT_RGBA8888);
    edgevit::Bytes tensor(edgevit_input_size_bytes(session));
    check(edgevit_preprocess(session, &square, &error));
    check(edgevit_read_input(session, tensor.data(), tensor.size(), &error));

    edgevit_result results[5];
    const auto around = [&] {
        std::size_t count = 5;
        check(edgevit_top_k(session, results, &count, &error));
    };
    const auto through_api = [&] {
        check(edgevit_set_input(session, tensor.data(), tensor.size(), &error));
        check(edgevit_invoke(session, &error));
        around();
    };
    const auto classify = [&](const edgevit_image& image) {
        std::size_t count = 5;
        check(edgevit_classify(session, &image, results, &count, &error));
    };
    for (int i = 0; i < 20; ++i) {
        through_api();
        classify(square);
        classify(camera);
    }

    std::vector<double> bare_us, api_us, ratio, outside_us, square_us, camera_us;
    const int pairs = std::max(1, std::atoi(argv[3]));
    for (int i = 0; i < pairs; ++i) {
        double bare = 0, api = 0;
        for (int half = 0; half < 2; ++half) {
            if ((i + half) % 2 == 0) {
                bare = timed_us([&] { backend.invoke(); });
            } else {
                api = timed_us(through_api);
            }
        }
        bare_us.push_back(bare), api_us.push_back(api), ratio.push_back(api / bare);
        // The same without the inference: what the C API adds, apart from the runtime's noise.
        const double before = timed_us(
            [&] { check(edgevit_set_input(session, tensor.data(), tensor.size(), &error)); });
        check(edgevit_invoke(session, &error));
        outside_us.push_back(before + timed_us(around));
        square_us.push_back(timed_us([&] { classify(square); }));
        camera_us.push_back(timed_us([&] { classify(camera); }));
    }
    std::printf("{\n  \"pairs\": %d,\n", pairs);
    print("bare_invoke_us", bare_us, ",");
    print("set_input_invoke_top5_us", api_us, ",");
    print("paired_ratio", ratio, ",");
    print("outside_invoke_us", outside_us, ",");
    print("classify_square_rgb_us", square_us, ",");
    print("classify_640x480_rgba_us", camera_us, "");
    std::printf("}\n");
    return edgevit_close(session, &error);
}
