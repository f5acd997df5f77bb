// What an edgevit_session of the C API is. benchmarks/overhead.cpp looks inside, nobody else.
#pragma once

#include <atomic>
#include <string>
#include <utility>

#include "edgevit/edgevit.h"
#include "session.h"

struct edgevit_session {
    edgevit_session(edgevit::Manifest manifest, const std::string& backend,
                    const edgevit::BackendOptions& options)
        : session(std::move(manifest), backend, options) {}

    edgevit::Session session;
    std::atomic<bool> in_use{false};
};
