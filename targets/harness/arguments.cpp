#include "arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
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

CLI::Range within(const Range<std::int64_t>& range) { return {range.least, range.most}; }

// CLI::Range lets NaN pass.
CLI::Validator finite_within(const Range<double>& bounds) {
    const CLI::Range range(bounds.least, bounds.most);
    return CLI::Validator(
        [range](std::string& text) {
            return text.find_first_of("nN") == std::string::npos ? range(text)
                                                                 : "'" + text + "' is no number";
        },
        "FLOAT");
}

// Options that are needed unless --request stands in for all.
std::vector<CLI::Option*> add_files(CLI::App& app, Request& r) {
    std::vector<CLI::Option*> needed = {
        app.add_option("--artifact", r.artifact, "artifact folder with its manifest.json"),
        app.add_option("--data", r.data,
                       "image folder or tar: CLASS/IMAGE.jpg, .png, .webp, .bmp or .ppm"),
        app.add_option("--out", r.out, "the result, as JSON")};
    app.add_option("--leave-out", r.leave_out,
                   "text file of images to pass over, one CLASS/IMAGE a line");
    app.add_option("--reference", r.reference,
                   "the program's logits (.safetensors); default: the manifest's");
    app.add_option("--logits", r.logits,
                   "write logits, labels, predictions and paths, or where the task has no classes "
                   "samples of every output (.safetensors)");
    app.add_flag("--maps-last", r.maps_last,
                 "outputs that are maps have their channels last: place their samples by it");
    app.add_option("--dump-inputs", r.dump_inputs,
                   "write every image's input tensor (.safetensors)");
    app.add_option("--profile", r.profile, "write the time of each op, from 50 extra runs (JSON)");
    return needed;
}

void add_runtime(CLI::App& app, Request& r) {
    app.add_option("--backend", r.backend,
                   "one of " + known_backends() + "; default: the manifest's target");
    app.add_option("--runtime", r.runtime,
                   "the runtime's shared library: a path with a '/', or a bare name that the "
                   "system's loader finds; for Core ML a compiled model (.mlmodelc)");
    app.add_option_function<std::vector<std::string>>(
           "-O,--runtime-option",
           [&r](const std::vector<std::string>& words) {
               for (const std::string& word : words) {
                   add_runtime_option(r.runtime_options, word);
               }
           },
           "KEY=VALUE, an option of the back-end; may be repeated" + known_runtime_options())
        ->allow_extra_args(false);
    for (const std::string name : {"compute_units", "plan_cache"}) {
        std::string flag = "--" + name;
        std::replace(flag.begin(), flag.end(), '_', '-');
        app.add_option_function<std::string>(
            flag,
            [&r, name](const std::string& value) {
                add_runtime_option(r.runtime_options, name, value);
            },
            "short for -O " + name + "=...");
    }
    app.add_option("--threads", r.threads, "of the runtime (default 1)")->check(within(kThreads));
}

void add_measuring(CLI::App& app, Request& r) {
    app.add_option("--warmup", r.warmup, "inferences before the clock counts (default 10)")
        ->check(within(kWarmup));
    app.add_option("--limit", r.limit, "this many images, spread evenly over the set")
        ->check(within(kLimit));
    app.add_option("--duration", r.duration_s,
                   "go on over the images until so many seconds are over (3600 at most); at least "
                   "one whole pass")
        ->check(finite_within(kDurationS));
    app.add_flag("--mlperf", r.mlperf,
                 "go on for at least 60 s and 1024 inferences, and read the P90");
    app.add_option("--bucket", r.bucket_s,
                   "seconds that one row of latency over time stands for (default 10)")
        ->check(finite_within(kBucketS));
}

// Returns what turns the parsed values into limits; raises InputError for a part of them.
std::function<void()> add_early_stop(CLI::App& app, Request& r) {
    auto limits = std::make_shared<GateLimits>();
    auto* early_stop = app.add_flag("--early-stop",
                                    "end as soon as a gate cannot hold any more, or both surely "
                                    "hold; needs --max-drop and --min-agreement");
    auto* max_drop = app.add_option("--max-drop", limits->max_drop_points,
                                    "gate: top-1 points below the reference's float net")
                         ->check(finite_within(kMaxDropPoints));
    auto* min_agreement = app.add_option("--min-agreement", limits->min_agreement_percent,
                                         "gate: percent of predictions equal to the program's")
                              ->check(finite_within(kMinAgreementPercent));
    return [=, &r] {
        if (early_stop->count() != max_drop->count() ||
            early_stop->count() != min_agreement->count()) {
            throw InputError(
                "--early-stop, --max-drop and --min-agreement go together; see --help");
        }
        if (early_stop->count() > 0) {
            r.early_stop = *limits;
        }
    };
}

}  // namespace

Command parse_command_line(int argc, const char* const* argv) {
    Command command;
    Request& request = command.run.emplace();
    CLI::App app(kAbout, "edgevit-harness");
    app.footer(kFooter);
    app.set_version_flag("--version", EDGEVIT_VERSION);
    std::string file;
    auto* from_file = app.add_option("--request", file,
                                     "a JSON file that says all the other options say, in their "
                                     "place (request.schema.json)");
    const std::vector<CLI::Option*> needed = add_files(app, request);
    add_runtime(app, request);
    add_measuring(app, request);
    const auto apply_early_stop = add_early_stop(app, request);
    const auto* quiet = app.add_flag("--quiet", request.quiet, "no progress on stderr");
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        return {std::nullopt, app.help()};
    } catch (const CLI::CallForVersion&) {
        return {std::nullopt, std::string(EDGEVIT_VERSION) + "\n"};
    } catch (const CLI::ParseError& error) {
        throw InputError(std::string(error.what()) + "; see --help");
    }
    if (from_file->count() > 0) {
        if (app.parse_order().size() > from_file->count() + quiet->count()) {
            throw InputError("--request stands alone: put the other options into " + file);
        }
        const bool is_quiet = request.quiet;
        request = load_request(file);
        request.quiet = is_quiet;
        return command;
    }
    for (const CLI::Option* option : needed) {
        if (option->count() == 0) {
            throw InputError(option->get_name() + " is required; see --help");
        }
    }
    apply_early_stop();
    check_request(request);
    return command;
}

}  // namespace edgevit
