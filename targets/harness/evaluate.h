// Runs an opened artifact over a data set and counts: one image after another, one inference each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dataset.h"
#include "early_stop.h"
#include "long_run.h"
#include "reference.h"
#include "session.h"
#include "statistics.h"

namespace edgevit {

struct EvaluationOptions {
    int warmup = 10;                    // inferences on the first image before the clock counts
    std::optional<std::size_t> limit;   // images, spread evenly over the set; absent: all
    std::filesystem::path logits_file;  // empty: not written
    std::filesystem::path inputs_file;  // empty: not written
    bool maps_last = false;             // outputs that are maps have their channels last
    std::optional<LongRunOptions> long_run;  // absent: every image once
    std::optional<GateLimits> early_stop;    // absent: every image, whatever the gates will say
    std::function<void(std::size_t done, std::size_t total)>
        progress;  // after each image; may throw
    std::function<void(double elapsed_s, double total_s)>
        long_progress;  // after each inference of a further pass; may throw
};

struct Evaluation {
    std::int64_t count = 0;         // images; a long run infers them more often
    std::int64_t top1 = 0;          // as top5 of a classification alone
    std::int64_t top5 = 0;          // of min(5, classes)
    std::vector<double> invoke_us;  // the runtime's call alone
    std::vector<double> device_us;  // of it, the accelerator's own clock; empty where it has none
    std::vector<double>
        end_to_end_us;  // decode, preprocess, invoke, dequantize; not the file's read
    std::optional<Comparison> program;  // with the reference, where there is one
    std::optional<Comparison> float_net;
    Bytes first_input;  // the input tensor of the first image
    std::optional<LongRunReport> long_run;
    std::optional<EarlyStop> early_stop;
    bool stopped_early = false;
    std::optional<std::int64_t> peak_memory_bytes;  // before a long run's figures pile up
};

// `count` indices out of `size`, spread evenly and in order: index i * size / count.
std::vector<std::size_t> spread(std::size_t size, std::optional<std::size_t> count);

// `reference` may be null; images without a row in it are not compared. Raises InputError naming
// the image that cannot be read or decoded, for logits that are not finite, and for an early stop
// without a reference.
Evaluation evaluate(Session& session, const Dataset& dataset, const ReferenceLogits* reference,
                    const EvaluationOptions& options);

}  // namespace edgevit
