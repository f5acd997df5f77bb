#include "harness.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <sstream>
#include <utility>

#include "arguments.h"
#include "core/bytes.h"
#include "core/errors.h"
#include "core/manifest.h"
#include "core/platform.h"
#include "core/sha256.h"
#include "dataset.h"
#include "evaluate.h"
#include "machine.h"
#include "reference.h"
#include "result.h"
#include "session.h"

namespace edgevit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMaxLeaveOutBytes = 64 << 20;
constexpr int kProfileRuns = 50;
constexpr int kCountingRuns = 1;  // enough to see how the graph was split

volatile std::sig_atomic_t interrupted = 0;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// A line every two seconds; stops the run when a signal asked for it, so that destructors
// remove what is half written.
std::function<void(std::size_t, std::size_t)> reporter(bool quiet) {
    return [quiet, start = Clock::now(), last = Clock::now()](std::size_t done,
                                                              std::size_t total) mutable {
        if (interrupted != 0) {
            throw Error("interrupted after " + std::to_string(done) +
                        " images; nothing was written");
        }
        if (quiet || seconds_since(last) < 2) {
            return;
        }
        last = Clock::now();
        const double rate = static_cast<double>(done) / seconds_since(start);
        std::fprintf(stderr, "%zu/%zu images, %.0f images/s, %.0f s left\n", done, total, rate,
                     static_cast<double>(total - done) / rate);
    };
}

// The same for the passes after the first, whose end is a time.
std::function<void(double, double)> long_reporter(bool quiet) {
    return [quiet, last_s = 0.0](double elapsed_s, double total_s) mutable {
        if (interrupted != 0) {
            throw Error("interrupted after " + std::to_string(elapsed_s) +
                        " s of the long run; nothing was written");
        }
        if (quiet || elapsed_s < last_s + 2) {
            return;
        }
        last_s = elapsed_s;
        std::fprintf(stderr, "%.0f/%.0f s of the long run\n", std::min(elapsed_s, total_s),
                     total_s);
    };
}

void check_writable(const std::filesystem::path& file) {
    const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
    if (!file.empty() && (std::filesystem::is_directory(file) || !is_writable_folder(folder))) {
        throw InputError(file.string() +
                         ": cannot be written there; name a file in an existing folder");
    }
}

// The logits to compare with, or nothing and the reason. A reference that the request names must
// fit the data; the manifest's own is passed over when the data are other images.
std::optional<ReferenceLogits> find_reference(const Request& request, const Manifest& manifest,
                                              const Dataset& dataset, std::string& reason) {
    if (!manifest.is_classification()) {
        if (!request.reference.empty()) {
            throw InputError(manifest.artifact_path().string() + ": its task is '" + manifest.task +
                             "', and --reference is of a classification's logits");
        }
        reason = "the task is no classification";
        return std::nullopt;
    }
    const auto classes = static_cast<std::size_t>(manifest.classes);
    const std::string data_sha256 = dataset.sha256();
    if (!request.reference.empty()) {
        ReferenceLogits reference = load_reference(request.reference, classes);
        if (reference.dataset_sha256 != data_sha256) {
            throw InputError(request.reference.string() + ": was recorded on other images (" +
                             reference.dataset_sha256 + ") than " + dataset.path().string() + " (" +
                             data_sha256 + ")");
        }
        return reference;
    }
    if (!manifest.reference) {
        reason = "the manifest names no reference logits";
        return std::nullopt;
    }
    if (manifest.reference->dataset_sha256 != data_sha256) {
        reason = "the manifest's reference logits are of other images";
        return std::nullopt;
    }
    const std::filesystem::path path = manifest.folder / manifest.reference->file;
    ReferenceLogits reference = load_reference(path, classes);
    if (reference.sha256 != manifest.reference->sha256) {
        throw InputError(path.string() + ": its sha256 is " + reference.sha256 +
                         ", the manifest says " + manifest.reference->sha256);
    }
    return reference;
}

// The lines of the file that names what to leave out.
std::vector<std::string> names_in(const std::filesystem::path& file) {
    std::vector<std::string> names;
    if (file.empty()) {
        return names;
    }
    const Bytes bytes = read_file(file, kMaxLeaveOutBytes);
    std::istringstream text(std::string(bytes.begin(), bytes.end()));
    for (std::string line; std::getline(text, line);) {
        if (!line.empty()) {
            names.push_back(line);
        }
    }
    return names;
}

EvaluationOptions evaluation_options(const Request& request) {
    EvaluationOptions options;
    options.warmup = request.warmup;
    options.limit = request.limit;
    options.logits_file = request.logits;
    options.inputs_file = request.dump_inputs;
    options.maps_last = request.maps_last;
    options.long_run = long_run_options(request);
    options.early_stop = request.early_stop;
    options.progress = reporter(request.quiet);
    options.long_progress = long_reporter(request.quiet);
    return options;
}

void print_summary(const Run& run) {
    const Evaluation& e = run.evaluation;
    const Summary invoke = summarise(e.invoke_us);
    if (run.manifest.is_classification()) {
        std::printf("top-1 %.2f %% of ",
                    100.0 * static_cast<double>(e.top1) / static_cast<double>(e.count));
    }
    std::printf("%lld images", static_cast<long long>(e.count));
    if (run.reference != nullptr) {
        std::printf(", agreement with the program %.2f %%",
                    100.0 * static_cast<double>(e.program->same_top1()) /
                        static_cast<double>(e.program->count()));
    }
    std::printf(", invoke p50 %.0f us, p90 %.0f us\n", invoke.p50, invoke.p90);
    if (e.stopped_early) {
        std::printf("stopped early: the gate %s\n", verdict_name(e.early_stop->verdict()));
    }
}

std::array<std::filesystem::path, 4> written_files(const Request& request) {
    return {request.out, request.logits, request.dump_inputs, request.profile};
}

void run(const Request& request) {
    const std::string started_at = utc_now();
    const Clock::time_point start = Clock::now();
    for (const std::filesystem::path& file : written_files(request)) {
        check_writable(file);
    }
    Manifest manifest = load_artifact(request.artifact);
    const std::vector<std::string> labels =
        manifest.is_classification() ? manifest.labels : std::vector<std::string>{};
    const Dataset dataset = Dataset::open(request.data, labels, names_in(request.leave_out));
    if (!dataset.notice().empty()) {
        std::fprintf(stderr, "edgevit-harness: note: %s\n", dataset.notice().c_str());
    }
    std::string reason;
    const auto reference = find_reference(request, manifest, dataset, reason);
    Session session(std::move(manifest), request.backend, backend_options(request));
    Run run{request,
            session.manifest(),
            dataset,
            reference ? &*reference : nullptr,
            reason,
            describe_machine(),
            session.backend().facts(),
            {},
            {},
            session.backend_name(),
            started_at,
            0};
    run.evaluation = evaluate(session, dataset, run.reference, evaluation_options(request));
    if (run.reference != nullptr && run.evaluation.program->count() == 0) {
        run.reference = nullptr;
        run.reference_reason = "the reference logits have no row for any of the images";
    }
    run.ops = session.backend().profile(run.evaluation.first_input,
                                        request.profile.empty() ? kCountingRuns : kProfileRuns);
    run.duration_s = seconds_since(start);
    if (!request.profile.empty()) {
        write_profile(run, request.profile);
    }
    write_result(run, request.out);
    if (!request.quiet) {
        print_summary(run);
    }
}

}  // namespace

void remove_half_written(int argc, const char* const* argv, std::int64_t process) noexcept {
    try {
        const Command command = parse_command_line(argc, argv);
        for (const std::filesystem::path& file : written_files(command.run.value())) {
            std::error_code ignored;
            std::filesystem::remove(AtomicFile::temporary_name(file, process), ignored);
        }
    } catch (const std::exception&) {
        return;  // what cannot be read has asked for no file
    }
}

void request_stop() { interrupted = 1; }

int run_command_line(int argc, const char* const* argv) {
    try {
        const Command command = parse_command_line(argc, argv);
        if (command.run) {
            run(*command.run);
        } else {
            std::fputs(command.text.c_str(), stdout);
        }
        return 0;
    } catch (const Error& error) {
        std::fprintf(stderr, "edgevit-harness: error: %s\n", error.what());
        return error.exit_code();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "edgevit-harness: error: internal: %s\n", error.what());
        return 1;
    }
}

}  // namespace edgevit
