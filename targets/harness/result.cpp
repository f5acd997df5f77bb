#include "result.h"

#include <nlohmann/json.hpp>

namespace edgevit {
namespace {

using json = nlohmann::ordered_json;

template <typename T>
json or_null(const std::optional<T>& value) {
    return value ? json(*value) : json(nullptr);
}

double percent(std::int64_t part, std::int64_t whole) {
    return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

json to_json(const Summary& summary) {
    return {{"p50", summary.p50},    {"p90", summary.p90}, {"p99", summary.p99},
            {"mean", summary.mean},  {"min", summary.min}, {"max", summary.max},
            {"count", summary.count}};
}

json to_json(const Machine& machine) {
    return {{"cpu", machine.cpu},
            {"cores", machine.cores},
            {"architecture", machine.architecture},
            {"os", machine.os},
            {"kernel", machine.kernel},
            {"governor", or_null(machine.governor)},
            {"load_averages", or_null(machine.load_averages)}};
}

json to_json(const RuntimeFacts& facts) {
    return {{"name", facts.name},
            {"version", or_null(facts.version)},
            {"library", or_null(facts.library_file)},
            {"library_sha256", or_null(facts.library_sha256)},
            {"accelerator_requested", facts.accelerator_requested},
            {"device", or_null(facts.device)},
            {"fully_accelerated", or_null(facts.fully_accelerated)},
            {"non_cpu_fully_accelerated", or_null(facts.non_cpu_fully_accelerated)}};
}

json accuracy(const Evaluation& evaluation, const Manifest& manifest) {
    if (!manifest.is_classification()) {
        return nullptr;
    }
    return {{"count", evaluation.count},
            {"top1_count", evaluation.top1},
            {"top1_percent", percent(evaluation.top1, evaluation.count)},
            {"top5_count", evaluation.top5},
            {"top5_percent", percent(evaluation.top5, evaluation.count)}};
}

// Between probabilities and logits there is an agreement, but no distance.
json to_json(const Comparison& comparison, const Manifest& manifest) {
    const bool are_logits = !manifest.is_classifier();
    return {{"count", comparison.count()},
            {"top1_count", comparison.same_top1()},
            {"top1_percent", percent(comparison.same_top1(), comparison.count())},
            {"max_abs_logit", are_logits ? json(comparison.max_abs_logit()) : json(nullptr)},
            {"mean_abs_logit", are_logits ? json(comparison.mean_abs_logit()) : json(nullptr)}};
}

// Against the program the difference is also counted in steps of the output's scale.
json program_agreement(const Run& run) {
    if (run.reference == nullptr) {
        return nullptr;
    }
    const Comparison& comparison = *run.evaluation.program;
    json result = {{"reference_sha256", run.reference->sha256}};
    result.update(to_json(comparison, run.manifest));
    const bool in_steps = run.manifest.logits().scale.has_value() && !run.manifest.is_classifier();
    result["max_abs_step"] = in_steps ? json(comparison.max_abs_step()) : json(nullptr);
    result["mean_abs_step"] = in_steps ? json(comparison.mean_abs_step()) : json(nullptr);
    json histogram = json::array();
    for (const auto& [step, logits] : comparison.steps()) {
        histogram.push_back({{"step", step}, {"logits", logits}});
    }
    result["step_histogram"] = in_steps ? histogram : json(nullptr);
    return result;
}

json ops(const OpReport& report) {
    json result = {{"total", or_null(report.total)},
                   {"delegated", or_null(report.delegated)},
                   {"partitions", or_null(report.partitions)}};
    result["devices"] = or_null(report.devices);
    result["precisions"] = or_null(report.precisions);
    result["not_delegated"] = report.delegated ? json(report.not_delegated) : json(nullptr);
    result["reason"] = report.reason.empty() ? json(nullptr) : json(report.reason);
    return result;
}

json to_json(const std::vector<std::optional<double>>& values) {
    json list = json::array();
    for (const std::optional<double>& value : values) {
        list.push_back(or_null(value));
    }
    return list;
}

json sensors(const SensorReading& reading) {
    json frequencies = json::array();
    for (const std::optional<std::int64_t>& value : reading.frequencies_khz) {
        frequencies.push_back(or_null(value));
    }
    return {{"temperatures_c", to_json(reading.temperatures_c)}, {"frequencies_khz", frequencies}};
}

json to_json(const LongRunReport& report) {
    json buckets = json::array();
    for (const LongRunReport::Bucket& bucket : report.buckets) {
        buckets.push_back({{"start_s", bucket.start_s},
                           {"invoke_us", to_json(bucket.invoke_us)},
                           {"sensors", sensors(bucket.sensors)}});
    }
    return {{"mode", report.options.mlperf ? "mlperf" : "duration"},
            {"min_duration_s", report.options.min_duration_s},
            {"min_samples", report.options.min_samples},
            {"samples", report.samples},
            {"duration_s", report.duration_s},
            {"invoke_share_percent", report.invoke_share_percent},
            {"zones", report.zones},
            {"clocks", report.clocks},
            {"sensors_at_start", sensors(report.sensors_at_start)},
            {"bucket_s", report.options.bucket_s},
            {"buckets", buckets},
            {"window_s", report.window_s},
            {"first_invoke_us", report.first ? to_json(*report.first) : json(nullptr)},
            {"last_invoke_us", report.last ? to_json(*report.last) : json(nullptr)},
            {"p50_ratio", or_null(report.p50_ratio)}};
}

json early_stop(const Evaluation& evaluation) {
    if (!evaluation.early_stop) {
        return nullptr;
    }
    const EarlyStop& stop = *evaluation.early_stop;
    return {{"stopped", evaluation.stopped_early},
            {"verdict", verdict_name(stop.verdict())},
            {"images", stop.images()},
            {"images_run", stop.images_run()},
            {"max_drop_points", stop.limits().max_drop_points},
            {"min_agreement_percent", stop.limits().min_agreement_percent}};
}

json mean_us(const OpTime& op) {
    if (op.runs == 0) {
        return nullptr;
    }
    return static_cast<double>(op.total_us) / static_cast<double>(op.runs);
}

json dataset(const Dataset& dataset) {
    const std::filesystem::path path = dataset.path().lexically_normal();
    const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
    return {{"name", name}, {"sha256", dataset.sha256()}, {"count", dataset.entries().size()}};
}

json harness() {
#ifdef NDEBUG
    const char* build = "release";
#else
    const char* build = "debug";
#endif
    return {{"version", EDGEVIT_VERSION}, {"compiler", EDGEVIT_COMPILER}, {"build", build}};
}

json heading(const Run& run, const char* kind) {
    return {{"schema_version", 1},
            {"kind", kind},
            {"target", run.manifest.target},
            {"backend", run.backend},
            {"artifact",
             {{"file", run.manifest.artifact_file}, {"sha256", run.manifest.artifact_sha256}}}};
}

void write(const json& document, const std::filesystem::path& path) {
    // A path need not be UTF-8, the document must: a byte that is not becomes U+FFFD.
    const std::string text = document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
    AtomicFile file(path);
    file.write(text.data(), text.size());
    file.commit();
}

}  // namespace

void write_result(const Run& run, const std::filesystem::path& path) {
    const Evaluation& evaluation = run.evaluation;
    json result = heading(run, "edgevit-result");
    result["program"] = {{"sha256", run.manifest.program_sha256}};
    result["profile"] = run.manifest.profile;
    result["model"] = {{"variant", run.manifest.variant}, {"classes", run.manifest.classes}};
    result["dataset"] = dataset(run.dataset);
    result["machine"] = to_json(run.machine);
    result["harness"] = harness();
    result["runtime"] = to_json(run.runtime);
    result["threads"] = run.request.threads;
    result["warmup"] = run.request.warmup;
    result["limit"] = or_null(run.request.limit);
    result["accuracy"] = accuracy(evaluation, run.manifest);
    result["agreement"] = program_agreement(run);
    result["agreement_reason"] =
        run.reference == nullptr ? json(run.reference_reason) : json(nullptr);
    const bool has_float = run.reference != nullptr && evaluation.float_net.has_value();
    result["agreement_float"] =
        has_float ? to_json(*evaluation.float_net, run.manifest) : json(nullptr);
    const std::vector<double>& device_us = evaluation.device_us;
    result["latency_us"] = {{"invoke", to_json(summarise(evaluation.invoke_us))},
                            {"device", device_us.empty() ? json() : to_json(summarise(device_us))},
                            {"end_to_end", to_json(summarise(evaluation.end_to_end_us))}};
    result["peak_memory_bytes"] = or_null(evaluation.peak_memory_bytes);
    result["ops"] = ops(run.ops);
    result["long_run"] = evaluation.long_run ? to_json(*evaluation.long_run) : json(nullptr);
    result["early_stop"] = early_stop(evaluation);
    result["started_at"] = run.started_at;
    result["duration_s"] = run.duration_s;
    write(result, path);
}

void write_profile(const Run& run, const std::filesystem::path& path) {
    json result = heading(run, "edgevit-profile");
    result["runtime"] = to_json(run.runtime);
    result["threads"] = run.request.threads;
    result["ops"] = ops(run.ops);
    json times = json::array();
    for (const OpTime& op : run.ops.times) {
        times.push_back(
            {{"name", op.name},
             {"type", or_null(op.type)},
             {"device", or_null(op.device)},
             {"precision", or_null(op.precision)},
             {"delegated", op.delegated},
             {"partition", op.delegated && run.ops.partitions ? json(op.partition) : json(nullptr)},
             {"index", op.index},
             {"runs", op.runs},
             {"mean_us", mean_us(op)}});
    }
    result["op_times"] = times;
    write(result, path);
}

}  // namespace edgevit
