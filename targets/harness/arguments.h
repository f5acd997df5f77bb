// The command line.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

#include "backend.h"
#include "early_stop.h"
#include "long_run.h"

namespace edgevit {

struct Arguments {
    std::filesystem::path artifact;
    std::filesystem::path data;
    std::filesystem::path out;
    std::string backend;  // empty: the manifest's target
    std::string runtime_library;
    RuntimeOptions runtime_options;
    std::filesystem::path reference;    // empty: the manifest's, if it names one
    std::filesystem::path logits;       // empty: not written
    std::filesystem::path dump_inputs;  // empty: not written
    std::filesystem::path profile;      // empty: not written
    int threads = 1;
    int warmup = 10;
    std::optional<std::size_t> limit;
    std::optional<LongRunOptions> long_run;  // --duration or --mlperf
    std::optional<GateLimits> early_stop;
    bool quiet = false;
};

// What a command line asks for: a run, or a text to print and be done (--help, --version).
struct Command {
    std::optional<Arguments> run;
    std::string text;
};

// Raises InputError for an unknown or missing option or a value out of range.
Command parse_command_line(int argc, const char* const* argv);

}  // namespace edgevit
