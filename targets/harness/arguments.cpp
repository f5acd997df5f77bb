#include "arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/errors.h"

namespace edgevit {
namespace {

constexpr const char* kAbout =
    "Run an artifact folder over a labelled image set and write one JSON: accuracy, agreement\n"
    "with the quantized program, latency, memory, and how the runtime split the graph.\n";

constexpr const char* kFooter =
    "Example:\n"
    "  edgevit-harness --artifact build/tflite --data val.tar --out result.json \\\n"
    "      --runtime .venv/lib/python3.11/site-packages/ai_edge_litert/libLiteRt.so\n"
    "Exit codes: 0 done, 1 internal, 2 bad usage or input, 4 runtime library or back-end missing.";

// The figures of every inference are kept until the end: this bounds their memory.
constexpr double kMaxDurationS = 3600;

std::string known_backends() {
    std::string text;
    for (const std::string& name : backend_names()) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text;
}

// A line for each option of each back-end in this build.
std::string known_runtime_options() {
    std::string text;
    for (const std::string& name : backend_names()) {
        for (const RuntimeOption& option : runtime_options_of(name)) {
            text += "\n" + name + ": " + option.usage() + ", " + option.help;
        }
    }
    return text;
}

// Returns what gathers the parsed values in Arguments; raises InputError for one given twice.
std::function<void()> add_runtime_options(CLI::App& app, Arguments& a) {
    auto words = std::make_shared<std::vector<std::string>>();
    auto compute_units = std::make_shared<std::string>();
    auto plan_cache = std::make_shared<std::string>();
    app.add_option(
           "--runtime-option", *words,
           "NAME=VALUE, an option of the back-end; may be repeated" + known_runtime_options())
        ->expected(1)
        ->take_all();
    app.add_option("--compute-units", *compute_units, "the runtime option compute_units (Core ML)");
    app.add_option("--plan-cache", *plan_cache, "the runtime option plan_cache (TensorRT)");
    return [=, &a] {
        for (const std::string& word : *words) {
            add_runtime_option(a.runtime_options, word);
        }
        for (const auto& [name, value] :
             {std::pair("compute_units", *compute_units), std::pair("plan_cache", *plan_cache)}) {
            if (!value.empty()) {
                add_runtime_option(a.runtime_options, name, value);
            }
        }
    };
}

// CLI::Range lets NaN pass.
CLI::Validator finite_within(double least, double most) {
    const CLI::Range range(least, most);
    return CLI::Validator(
        [range](std::string& text) {
            return text.find_first_of("nN") == std::string::npos ? range(text)
                                                                 : "'" + text + "' is no number";
        },
        "FLOAT");
}

// Returns what turns the parsed values into Arguments; raises InputError for options that belong
// together and are not given together.
std::function<void()> add_long_run_options(CLI::App& app, Arguments& a) {
    auto given = std::make_shared<LongRunOptions>();
    auto limits = std::make_shared<GateLimits>();
    auto* duration = app.add_option("--duration", given->min_duration_s,
                                    "go on over the images until so many seconds are over (3600 "
                                    "at most); at least one whole pass")
                         ->check(finite_within(0.001, kMaxDurationS));
    auto* mlperf = app.add_flag("--mlperf", given->mlperf,
                                "go on for at least 60 s and 1024 inferences, and read the P90");
    auto* bucket =
        app.add_option("--bucket", given->bucket_s,
                       "seconds that one row of latency over time stands for (default 10)")
            ->check(finite_within(0.01, kMaxDurationS));
    auto* early_stop = app.add_flag("--early-stop",
                                    "end as soon as a gate cannot hold any more, or both surely "
                                    "hold; needs --max-drop and --min-agreement");
    auto* max_drop = app.add_option("--max-drop", limits->max_drop_points,
                                    "gate: top-1 points below the reference's float net")
                         ->check(finite_within(-100, 100));
    auto* min_agreement = app.add_option("--min-agreement", limits->min_agreement_percent,
                                         "gate: percent of predictions equal to the program's")
                              ->check(finite_within(0, 1000));
    return [=, &a] {
        const bool is_long = duration->count() + mlperf->count() > 0;
        if (bucket->count() > 0 && !is_long) {
            throw InputError("--bucket needs --duration or --mlperf; see --help");
        }
        if (early_stop->count() != max_drop->count() ||
            early_stop->count() != min_agreement->count()) {
            throw InputError(
                "--early-stop, --max-drop and --min-agreement go together; see --help");
        }
        if (given->mlperf) {
            given->min_samples = kMlperfSamples;
            given->min_duration_s = std::max(given->min_duration_s, kMlperfDurationS);
        }
        if (is_long) {
            a.long_run = *given;
        }
        if (early_stop->count() > 0) {
            a.early_stop = *limits;
        }
    };
}

}  // namespace

Command parse_command_line(int argc, const char* const* argv) {
    Command command;
    Arguments& a = command.run.emplace();
    CLI::App app(kAbout, "edgevit-harness");
    app.footer(kFooter);
    app.set_version_flag("--version", EDGEVIT_VERSION);
    app.add_option("--artifact", a.artifact, "artifact folder with its manifest.json")->required();
    app.add_option("--data", a.data, "image folder or tar: CLASS/IMAGE.jpg or .png")->required();
    app.add_option("--out", a.out, "the result, as JSON")->required();
    app.add_option("--backend", a.backend,
                   "one of " + known_backends() + "; default: the manifest's target");
    app.add_option("--runtime", a.runtime_library,
                   "the runtime's shared library: a path with a '/', or a bare name that the "
                   "system's loader finds; for Core ML a compiled model (.mlmodelc)");
    const auto apply_runtime_options = add_runtime_options(app, a);
    app.add_option("--reference", a.reference,
                   "the program's logits (.safetensors); default: the manifest's");
    app.add_option("--logits", a.logits,
                   "write logits, labels, predictions and paths (.safetensors)");
    app.add_option("--dump-inputs", a.dump_inputs,
                   "write every image's input tensor (.safetensors)");
    app.add_option("--profile", a.profile, "write the time of each op, from 50 extra runs (JSON)");
    app.add_option("--threads", a.threads, "of the runtime (default 1)")->check(CLI::Range(1, 256));
    app.add_option("--warmup", a.warmup, "inferences before the clock counts (default 10)")
        ->check(CLI::Range(0, 100000));
    app.add_option("--limit", a.limit, "this many images, spread evenly over the set")
        ->check(CLI::Range(1, 1000000000));
    const auto apply_long_run = add_long_run_options(app, a);
    app.add_flag("--quiet", a.quiet, "no progress on stderr");
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        return {std::nullopt, app.help()};
    } catch (const CLI::CallForVersion&) {
        return {std::nullopt, std::string(EDGEVIT_VERSION) + "\n"};
    } catch (const CLI::ParseError& error) {
        throw InputError(std::string(error.what()) + "; see --help");
    }
    apply_runtime_options();
    apply_long_run();
    return command;
}

}  // namespace edgevit
