// The C API: checks what comes in, keeps a second thread out, and turns exceptions into codes.
#include "edgevit/edgevit.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "artifact.h"
#include "c_structs.h"
#include "core/errors.h"
#include "core/manifest.h"
#include "handle.h"

using namespace edgevit;

namespace {

struct Busy {};

// Holds a session for one call.
class Hold {
  public:
    explicit Hold(edgevit_session* handle) : handle_(handle) {
        if (handle_ == nullptr) {
            throw CallError("the session is null");
        }
        if (handle_->in_use.exchange(true, std::memory_order_acquire)) {
            throw Busy();
        }
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() {
        if (handle_ != nullptr) {
            handle_->in_use.store(false, std::memory_order_release);
        }
    }

    // Of a session that is about to be freed.
    void forget() { handle_ = nullptr; }

    Session* operator->() const { return &handle_->session; }

    Classification& classification() const {
        check_classes(handle_->session.manifest());
        return *handle_->classification;
    }

  private:
    edgevit_session* handle_;
};

edgevit_status fill(edgevit_error* error, edgevit_status code, const char* text) noexcept {
    if (error != nullptr) {
        std::size_t size = std::strlen(text);
        if (size >= sizeof error->message) {
            size = sizeof error->message - 1;
            // Not in the middle of a character: bytes 10xxxxxx continue one.
            while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) {
                --size;
            }
        }
        error->code = code;
        std::memcpy(error->message, text, size);
        error->message[size] = '\0';
    }
    return code;
}

edgevit_status code_of(const Error& error) noexcept {
    if (dynamic_cast<const CallError*>(&error) != nullptr) {
        return EDGEVIT_BAD_CALL;
    }
    if (dynamic_cast<const InputError*>(&error) != nullptr) {
        return EDGEVIT_BAD_INPUT;
    }
    return dynamic_cast<const ToolMissing*>(&error) != nullptr ? EDGEVIT_TOOL_MISSING
                                                               : EDGEVIT_FAILED;
}

// Runs `action`; what it throws becomes a code and a message.
template <typename Action>
edgevit_status guarded(edgevit_error* error, const Action& action) noexcept {
    try {
        action();
        return fill(error, EDGEVIT_OK, "");
    } catch (const Busy&) {
        return fill(error, EDGEVIT_BUSY, "another call is using this session");
    } catch (const Error& failure) {
        return fill(error, code_of(failure), failure.what());
    } catch (const std::filesystem::filesystem_error& failure) {
        return fill(error, EDGEVIT_BAD_INPUT, failure.what());
    } catch (const std::bad_alloc&) {
        return fill(error, EDGEVIT_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& failure) {
        return fill(error, EDGEVIT_FAILED, failure.what());
    } catch (...) { return fill(error, EDGEVIT_FAILED, "an unknown exception"); }
}

const Manifest& manifest_of(const edgevit_session* session) {
    require(session != nullptr, "the session is null");
    return session->session.manifest();
}

const char* backend_of(const edgevit_options& given) {
    return given.backend == nullptr ? "" : given.backend;
}

ByteView bytes_at(const void* memory, std::size_t size_bytes) {
    return {static_cast<const std::uint8_t*>(memory), size_bytes};
}

// `file` holds the artifact's bytes, or is null where the caller does.
edgevit_session* open_bytes(ByteView manifest, ByteView artifact, const edgevit_options* options,
                            std::unique_ptr<MappedFile> file) {
    const edgevit_options given = known_options(options);
    BackendOptions backend = backend_options(given);
    backend.artifact = artifact;
    return std::make_unique<edgevit_session>(manifest_of_bytes(manifest, artifact),
                                             backend_of(given), backend, std::move(file))
        .release();
}

void preprocess(const Hold& session, const edgevit_image* image) {
    session->preprocess(frame_of(image));
    session->set_input(session->input());
}

void check_results(const edgevit_result* results, const std::size_t* count) {
    require(results != nullptr && count != nullptr, "results or count is null");
    require(*count > 0, "count is 0: there is no room for a result");
}

void write_top_k(const Hold& session, edgevit_result* results, std::size_t* count) {
    Classification& classification = session.classification();
    const std::vector<float>& scores = classification.read_scores();
    const std::vector<double>& probabilities = classification.probabilities();
    const std::vector<std::size_t>& best = classification.top_k(*count);
    for (std::size_t i = 0; i < best.size(); ++i) {
        const std::size_t index = best[i];
        edgevit_result& result = results[i] = {};
        result.class_index = static_cast<std::int32_t>(index);
        result.logit = classification.are_probabilities() ? std::numeric_limits<float>::quiet_NaN()
                                                          : scores[index];
        result.probability = static_cast<float>(probabilities[index]);
        result.label = session->manifest().labels[index].c_str();
    }
    *count = best.size();
}

}  // namespace

const char* edgevit_version(void) noexcept { return EDGEVIT_VERSION; }

const char* edgevit_status_name(edgevit_status status) noexcept {
    switch (status) {
        case EDGEVIT_OK:
            return "EDGEVIT_OK";
        case EDGEVIT_FAILED:
            return "EDGEVIT_FAILED";
        case EDGEVIT_BAD_INPUT:
            return "EDGEVIT_BAD_INPUT";
        case EDGEVIT_BAD_CALL:
            return "EDGEVIT_BAD_CALL";
        case EDGEVIT_TOOL_MISSING:
            return "EDGEVIT_TOOL_MISSING";
        case EDGEVIT_BUSY:
            return "EDGEVIT_BUSY";
        case EDGEVIT_OUT_OF_MEMORY:
            return "EDGEVIT_OUT_OF_MEMORY";
        default:
            return "unknown";
    }
}

void edgevit_options_init(edgevit_options* options) noexcept {
    if (options != nullptr) {
        *options = {};
        options->struct_size_bytes = sizeof *options;
    }
}

void edgevit_image_init(edgevit_image* image) noexcept {
    if (image != nullptr) {
        *image = {};
        image->struct_size_bytes = sizeof *image;
    }
}

edgevit_status edgevit_open(const char* folder, const edgevit_options* options,
                            edgevit_session** session, edgevit_error* error) noexcept {
    if (session != nullptr) {
        *session = nullptr;
    }
    return guarded(error, [&] {
        require(folder != nullptr && session != nullptr, "folder or session is null");
        const edgevit_options given = known_options(options);
        *session = std::make_unique<edgevit_session>(load_artifact(folder), backend_of(given),
                                                     backend_options(given))
                       .release();
    });
}

edgevit_status edgevit_open_memory(const void* manifest, size_t manifest_size_bytes,
                                   const void* artifact, size_t artifact_size_bytes,
                                   const edgevit_options* options, edgevit_session** session,
                                   edgevit_error* error) noexcept {
    if (session != nullptr) {
        *session = nullptr;
    }
    return guarded(error, [&] {
        require(manifest != nullptr && artifact != nullptr && session != nullptr,
                "manifest, artifact or session is null");
        *session = open_bytes(bytes_at(manifest, manifest_size_bytes),
                              bytes_at(artifact, artifact_size_bytes), options, nullptr);
    });
}

edgevit_status edgevit_open_descriptor(const void* manifest, size_t manifest_size_bytes,
                                       int descriptor, uint64_t offset_bytes, uint64_t length_bytes,
                                       const edgevit_options* options, edgevit_session** session,
                                       edgevit_error* error) noexcept {
    if (session != nullptr) {
        *session = nullptr;
    }
    return guarded(error, [&] {
        require(manifest != nullptr && session != nullptr, "manifest or session is null");
        auto file = std::make_unique<MappedFile>(descriptor, offset_bytes, length_bytes);
        const ByteView artifact = file->bytes();
        *session =
            open_bytes(bytes_at(manifest, manifest_size_bytes), artifact, options, std::move(file));
    });
}

edgevit_status edgevit_close(edgevit_session* session, edgevit_error* error) noexcept {
    return guarded(error, [&] {
        if (session != nullptr) {
            Hold hold(session);
            hold.forget();
            delete session;
        }
    });
}

edgevit_status edgevit_classify(edgevit_session* session, const edgevit_image* image,
                                edgevit_result* results, size_t* count,
                                edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Hold held(session);
        check_results(results, count);
        held.classification();
        preprocess(held, image);
        held->invoke();
        write_top_k(held, results, count);
    });
}

edgevit_status edgevit_preprocess(edgevit_session* session, const edgevit_image* image,
                                  edgevit_error* error) noexcept {
    return guarded(error, [&] { preprocess(Hold(session), image); });
}

edgevit_status edgevit_set_input(edgevit_session* session, const void* tensor, size_t size_bytes,
                                 edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Hold held(session);
        require(tensor != nullptr, "the tensor is null");
        held->set_input({static_cast<const std::uint8_t*>(tensor), size_bytes});
    });
}

edgevit_status edgevit_read_input(edgevit_session* session, void* tensor, size_t size_bytes,
                                  edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Hold held(session);
        require(tensor != nullptr, "the tensor is null");
        const Bytes& input = held->input();
        require(size_bytes == input.size(), "size_bytes is not edgevit_input_size_bytes()");
        std::memcpy(tensor, input.data(), input.size());
    });
}

edgevit_status edgevit_invoke(edgevit_session* session, edgevit_error* error) noexcept {
    return guarded(error, [&] { Hold(session)->invoke(); });
}

edgevit_status edgevit_output(edgevit_session* session, size_t index, float* values, size_t count,
                              edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Hold held(session);
        require(values != nullptr, "values is null");
        const std::vector<float>& output = held->output(index);
        require(count == output.size(), "count is not the output's element_count");
        std::copy(output.begin(), output.end(), values);
    });
}

edgevit_status edgevit_output_bytes(edgevit_session* session, size_t index, void* bytes,
                                    size_t size_bytes, edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Hold held(session);
        require(bytes != nullptr, "bytes is null");
        const Bytes& output = held->output_bytes(index);
        require(size_bytes == output.size(), "size_bytes is not the output's");
        std::memcpy(bytes, output.data(), output.size());
    });
}

edgevit_status edgevit_logits(edgevit_session* session, float* logits, size_t count,
                              edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Hold held(session);
        require(logits != nullptr, "logits is null");
        if (held.classification().are_probabilities()) {
            throw InputError(held->manifest().artifact_path().string() +
                             ": answers with probabilities and has no logits: ask for those");
        }
        const std::vector<float>& answer = held.classification().read_scores();
        require(count == answer.size(), "count is not edgevit_class_count()");
        std::copy(answer.begin(), answer.end(), logits);
    });
}

edgevit_status edgevit_probabilities(edgevit_session* session, float* probabilities, size_t count,
                                     edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Hold held(session);
        require(probabilities != nullptr, "probabilities is null");
        const std::vector<double>& answer = held.classification().probabilities();
        require(count == answer.size(), "count is not edgevit_class_count()");
        std::transform(answer.begin(), answer.end(), probabilities,
                       [](double value) { return static_cast<float>(value); });
    });
}

edgevit_status edgevit_top_k(edgevit_session* session, edgevit_result* results, size_t* count,
                             edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Hold held(session);
        check_results(results, count);
        write_top_k(held, results, count);
    });
}

size_t edgevit_image_size(const edgevit_session* session) noexcept {
    return session == nullptr
               ? 0
               : static_cast<size_t>(session->session.manifest().preprocessing.side());
}

size_t edgevit_input_size_bytes(const edgevit_session* session) noexcept {
    return session == nullptr ? 0 : session->session.manifest().input.size_bytes();
}

size_t edgevit_output_count(const edgevit_session* session) noexcept {
    return session == nullptr ? 0 : session->session.manifest().outputs.size();
}

size_t edgevit_class_count(const edgevit_session* session) noexcept {
    return session == nullptr || !session->classification
               ? 0
               : session->session.manifest().labels.size();
}

const char* edgevit_label(const edgevit_session* session, size_t class_index) noexcept {
    return class_index < edgevit_class_count(session)
               ? session->session.manifest().labels[class_index].c_str()
               : nullptr;
}

const char* edgevit_backend(const edgevit_session* session) noexcept {
    return session == nullptr ? nullptr : session->session.backend_name().c_str();
}

const char* edgevit_accelerator(const edgevit_session* session) noexcept {
    return session == nullptr ? nullptr : session->accelerator.c_str();
}

int32_t edgevit_answers_probabilities(const edgevit_session* session) noexcept {
    return session != nullptr && session->session.manifest().is_classification() &&
                   session->session.manifest().answers_probabilities()
               ? 1
               : 0;
}

edgevit_status edgevit_input_info(const edgevit_session* session, edgevit_tensor* tensor,
                                  edgevit_error* error) noexcept {
    return guarded(error, [&] { describe(manifest_of(session).input, tensor); });
}

edgevit_status edgevit_output_info(const edgevit_session* session, size_t index,
                                   edgevit_tensor* tensor, edgevit_error* error) noexcept {
    return guarded(error, [&] {
        const Manifest& manifest = manifest_of(session);
        require(index < manifest.outputs.size(), "index is not below edgevit_output_count()");
        describe(manifest.outputs[index], tensor);
    });
}

edgevit_status edgevit_find_output(const edgevit_session* session, const char* name, size_t* index,
                                   edgevit_error* error) noexcept {
    return guarded(error, [&] {
        require(session != nullptr && name != nullptr && index != nullptr,
                "session, name or index is null");
        *index = session->session.output_index(name);
    });
}
