// Prints the likeliest classes of pictures. See README.md.
#include <cstdio>
#include <exception>

#include "classifier.h"
#include "core/errors.h"
#include "ppm.h"

int main(int argc, char** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: %s MODEL_FOLDER PLAN_FOLDER IMAGE.ppm...\n", argv[0]);
        return 2;
    }
    try {
        Classifier classifier(argv[1], argv[2]);
        for (int i = 3; i < argc; ++i) {
            const edgevit::Image picture = read_ppm(argv[i]);
            std::printf("%s\n", argv[i]);
            for (const Score& score : classifier.classify(edgevit::pixels_of(picture), 5)) {
                std::printf("  %6.2f %%  %s\n", 100.0 * score.probability, score.label.c_str());
            }
            std::printf("  %.0f us on the GPU\n", classifier.last_device_us());
        }
        return 0;
    } catch (const edgevit::Error& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return error.exit_code();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: internal: %s\n", error.what());
        return 1;
    }
}
