// The one JSON a run leaves: edgevit/schemas/result.schema.json says what is in it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "request.h"
#include "backend.h"
#include "dataset.h"
#include "evaluate.h"
#include "machine.h"
#include "reference.h"

namespace edgevit {

// All that a run found out, before it becomes JSON.
struct Run {
    const Request& request;
    const Manifest& manifest;
    const Dataset& dataset;
    const ReferenceLogits* reference;  // null: no comparison
    std::string reference_reason;      // why there is none
    Machine machine;
    RuntimeFacts runtime;
    Evaluation evaluation;
    OpReport ops;
    std::string backend;
    std::string started_at;
    double duration_s = 0;
};

// Both write atomically; numbers are finite, text is UTF-8.
void write_result(const Run& run, const std::filesystem::path& path);
void write_profile(const Run& run, const std::filesystem::path& path);

}  // namespace edgevit
