// What an edgevit_session of the C API is. benchmarks/overhead.cpp looks inside, nobody else.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "classification.h"
#include "edgevit/edgevit.h"
#include "mapped_file.h"
#include "session.h"

struct edgevit_session {
    // `mapped` holds the bytes of options.artifact where they are a part of a file.
    edgevit_session(edgevit::Manifest manifest, const std::string& backend,
                    const edgevit::BackendOptions& options,
                    std::unique_ptr<edgevit::MappedFile> mapped = nullptr)
        : file(std::move(mapped)), session(std::move(manifest), backend, options) {
        if (session.manifest().is_classification()) {
            classification.emplace(session);
        }
    }

    std::unique_ptr<edgevit::MappedFile> file;  // outlives the session
    edgevit::Session session;
    std::string accelerator = session.backend().accelerator();
    std::optional<edgevit::Classification> classification;  // absent when the task is another
    std::atomic<bool> in_use{false};
};
