#include "arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>

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

ComputeUnits compute_units_from_name(const std::string& name) {
    const std::vector<std::string>& names = compute_units_names();
    return static_cast<ComputeUnits>(std::find(names.begin(), names.end(), name) - names.begin());
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
                   "the runtime's shared library (.so); for Core ML a compiled model (.mlmodelc)");
    std::string compute_units;
    app.add_option("--compute-units", compute_units, "what Core ML may use (default all)")
        ->check(CLI::IsMember(compute_units_names()));
    app.add_option("--plan-cache", a.plan_cache,
                   "existing folder, writable by you alone, that keeps TensorRT's plans");
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
    if (!compute_units.empty()) {
        a.compute_units = compute_units_from_name(compute_units);
    }
    return command;
}

}  // namespace edgevit
