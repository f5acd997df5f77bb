// What an edgevit_session of the C API is. benchmarks/overhead.cpp looks inside, nobody else.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <utility>

#include "classification.h"
#include "edgevit/edgevit.h"
#include "session.h"

struct edgevit_session {
    edgevit_session(edgevit::Manifest manifest, const std::string& backend,
                    const edgevit::BackendOptions& options)
        : session(std::move(manifest), backend, options) {
        if (session.manifest().is_classification()) {
            classification.emplace(session);
        }
    }

    edgevit::Session session;
    std::optional<edgevit::Classification> classification;  // absent when the task is another
    std::atomic<bool> in_use{false};
};
