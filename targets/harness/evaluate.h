// Runs an opened artifact over a data set and counts: one image after another, one inference each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dataset.h"
#include "reference.h"
#include "session.h"
#include "statistics.h"

namespace edgevit {

struct EvaluationOptions {
    int warmup = 10;                    // inferences on the first image before the clock counts
    std::optional<std::size_t> limit;   // images, spread evenly over the set; absent: all
    std::filesystem::path logits_file;  // empty: not written
    std::filesystem::path inputs_file;  // empty: not written
    std::function<void(std::size_t done, std::size_t total)>
        progress;  // after each image; may throw
};

struct Evaluation {
    std::int64_t count = 0;
    std::int64_t top1 = 0;
    std::int64_t top5 = 0;          // of min(5, classes)
    std::vector<double> invoke_us;  // the runtime's call alone
    std::vector<double> device_us;  // of it, the accelerator's own clock; empty where it has none
    std::vector<double>
        end_to_end_us;  // decode, preprocess, invoke, dequantize; not the file's read
    std::optional<Comparison> program;  // with the reference, where there is one
    std::optional<Comparison> float_net;
    Bytes first_input;  // the input tensor of the first image
};

// `count` indices out of `size`, spread evenly and in order: index i * size / count.
std::vector<std::size_t> spread(std::size_t size, std::optional<std::size_t> count);

// `reference` may be null; images without a row in it are not compared. Raises InputError naming
// the image that cannot be read or decoded, and for logits that are not finite.
Evaluation evaluate(Session& session, const Dataset& dataset, const ReferenceLogits* reference,
                    const EvaluationOptions& options);

}  // namespace edgevit
