// The native methods of EdgevitNative (EdgevitSession.kt), over libedgevit's C API.
//
// Text crosses as UTF-8 bytes: JNI's own strings are a modified UTF-8. A handle is a number that is
// looked up, never a pointer: one that was closed is an error. Whatever goes wrong leaves as one
// Java exception, and no C++ exception leaves at all.
#include <jni.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "edgevit/edgevit.h"

namespace {

constexpr const char* kNativeClass = "edgevit/android/EdgevitNative";
constexpr const char* kExceptionClass = "edgevit/android/EdgevitException";

jclass exception_class = nullptr;
jmethodID exception_constructor = nullptr;

struct Failure {
    edgevit_status status;
    std::string message;
};

// A Java exception is on its way already.
struct Pending {};

void require(bool condition, const char* message) {
    if (!condition) {
        throw Failure{EDGEVIT_BAD_CALL, message};
    }
}

void check(edgevit_status status, const edgevit_error& error) {
    if (status != EDGEVIT_OK) {
        throw Failure{status, error.message};
    }
}

void check_pending(JNIEnv* env) {
    if (env->ExceptionCheck() != JNI_FALSE) {
        throw Pending();
    }
}

// A session and the memory that its answers take, so that a frame allocates nothing.
struct Opened {
    explicit Opened(edgevit_session* opened) : session(opened) {
        const std::size_t classes = edgevit_class_count(session);
        results.resize(classes);
        all_probabilities.resize(classes);
        indices.resize(classes);
        logits.resize(classes);
        probabilities.resize(classes);
    }
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;
    ~Opened() { edgevit_close(session, nullptr); }

    edgevit_session* session;
    std::mutex turn;  // the Kotlin side takes turns too, for arrays of its own
    std::vector<edgevit_result> results;
    std::vector<float> all_probabilities;
    std::vector<jint> indices;
    std::vector<jfloat> logits;
    std::vector<jfloat> probabilities;
};

// Every open session by its handle. Handles are not used twice.
class Sessions {
  public:
    jlong add(std::shared_ptr<Opened> opened) {
        const std::lock_guard<std::mutex> lock(mutex_);
        sessions_.emplace(++last_, std::move(opened));
        return last_;
    }

    // Whoever holds what this returns keeps the session open, whatever becomes of the handle.
    std::shared_ptr<Opened> find(jlong handle) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = sessions_.find(handle);
        require(found != sessions_.end(), "the session is closed");
        return found->second;
    }

    // What it returns closes the session when it goes, which may take a call's time.
    std::shared_ptr<Opened> remove(jlong handle) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = sessions_.find(handle);
        if (found == sessions_.end()) {
            return nullptr;
        }
        std::shared_ptr<Opened> removed = std::move(found->second);
        sessions_.erase(found);
        return removed;
    }

  private:
    std::mutex mutex_;
    std::map<jlong, std::shared_ptr<Opened>> sessions_;
    jlong last_ = 0;
};

// Never destroyed: LiteRT, loaded later, is gone before a destructor of ours would run at exit.
Sessions& sessions() {
    static Sessions& all = *new Sessions;
    return all;
}

jbyteArray to_bytes(JNIEnv* env, const char* text) noexcept {
    const auto length = static_cast<jsize>(std::char_traits<char>::length(text));
    jbyteArray bytes = env->NewByteArray(length);
    if (bytes != nullptr) {
        env->SetByteArrayRegion(bytes, 0, length, reinterpret_cast<const jbyte*>(text));
    }
    return bytes;
}

void throw_java(JNIEnv* env, edgevit_status status, const char* message) noexcept {
    jbyteArray utf8 = to_bytes(env, message);
    if (utf8 == nullptr) {
        return;  // an OutOfMemoryError is on its way instead
    }
    jobject exception = env->NewObject(exception_class, exception_constructor, status, utf8);
    if (env->ExceptionCheck() == JNI_FALSE) {
        env->Throw(static_cast<jthrowable>(exception));
    }
    env->DeleteLocalRef(exception);
    env->DeleteLocalRef(utf8);
}

// What `action` returns; 0 or null with a Java exception on its way when it throws.
template <typename Action>
auto guarded(JNIEnv* env, const Action& action) noexcept -> decltype(action()) {
    try {
        return action();
    } catch (const Pending&) {
    } catch (const Failure& failure) {
        throw_java(env, failure.status, failure.message.c_str());
    } catch (const std::bad_alloc&) {
        throw_java(env, EDGEVIT_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& failure) {
        throw_java(env, EDGEVIT_FAILED, failure.what());
    } catch (...) { throw_java(env, EDGEVIT_FAILED, "an unknown exception"); }
    return decltype(action())();
}

std::string to_text(JNIEnv* env, jbyteArray utf8, const char* what) {
    if (utf8 == nullptr) {
        throw Failure{EDGEVIT_BAD_CALL, std::string(what) + " is null"};
    }
    std::string text(static_cast<std::size_t>(env->GetArrayLength(utf8)), '\0');
    env->GetByteArrayRegion(utf8, 0, static_cast<jsize>(text.size()),
                            reinterpret_cast<jbyte*>(text.data()));
    check_pending(env);
    if (text.find('\0') != std::string::npos) {
        throw Failure{EDGEVIT_BAD_INPUT, std::string(what) + " holds a zero byte"};
    }
    return text;
}

// The picture that lies in a buffer's bytes [begin, end).
edgevit_image image_in(JNIEnv* env, jobject pixels, jint begin, jint end, jint width, jint height,
                       jint row_stride) {
    require(pixels != nullptr, "the pixels are null");
    const auto* memory = static_cast<const std::uint8_t*>(env->GetDirectBufferAddress(pixels));
    require(memory != nullptr, "the pixels are no direct ByteBuffer: use allocateDirect()");
    require(begin >= 0 && begin <= end && end <= env->GetDirectBufferCapacity(pixels),
            "the pixels' position and limit do not lie in the buffer");
    require(width > 0 && height > 0 && row_stride > 0,
            "width, height and row stride must be 1 or more");
    // Two 31-bit numbers: neither product nor sum leaves 64 bits.
    const std::int64_t needed =
        std::int64_t{row_stride} * (std::int64_t{height} - 1) + std::int64_t{width} * 4;
    if (needed > std::int64_t{end} - begin) {
        throw Failure{EDGEVIT_BAD_CALL,
                      "the buffer has " + std::to_string(end - begin) + " bytes left, " +
                          std::to_string(width) + "x" + std::to_string(height) +
                          " RGBA pixels with a row stride of " + std::to_string(row_stride) +
                          " bytes are " + std::to_string(needed)};
    }
    return {memory + begin, static_cast<std::size_t>(width), static_cast<std::size_t>(height),
            static_cast<std::size_t>(row_stride), EDGEVIT_RGBA8888};
}

// Classifies, and fills the first entries of `indices`, `logits` and `probabilities`; how many.
std::size_t classify(Opened& opened, const edgevit_image& image, std::size_t count) {
    edgevit_error error;
    check(edgevit_classify(opened.session, &image, opened.results.data(), &count, &error), error);
    std::vector<float>& all = opened.all_probabilities;
    check(edgevit_probabilities(opened.session, all.data(), all.size(), &error), error);
    for (std::size_t i = 0; i < count; ++i) {
        const edgevit_result& result = opened.results[i];
        opened.indices[i] = result.class_index;
        opened.logits[i] = result.logit;
        opened.probabilities[i] = all[static_cast<std::size_t>(result.class_index)];
    }
    return count;
}

jlong native_open(JNIEnv* env, jclass, jbyteArray folder, jbyteArray runtime_library,
                  jint threads) {
    return guarded(env, [&]() -> jlong {
        const std::string path = to_text(env, folder, "the folder");
        const std::string library = to_text(env, runtime_library, "the runtime library");
        edgevit_options options;
        edgevit_options_init(&options);
        options.backend = "tflite";
        options.runtime_library = library.c_str();
        options.threads = threads;
        edgevit_session* session = nullptr;
        edgevit_error error;
        check(edgevit_open(path.c_str(), &options, &session, &error), error);
        struct Closer {
            void operator()(edgevit_session* open) const { edgevit_close(open, nullptr); }
        };
        std::unique_ptr<edgevit_session, Closer> owner(session);
        auto opened = std::make_shared<Opened>(session);
        static_cast<void>(owner.release());
        return sessions().add(std::move(opened));
    });
}

void native_close(JNIEnv* env, jclass, jlong handle) {
    guarded(env, [&] { sessions().remove(handle); });
}

jint native_image_size(JNIEnv* env, jclass, jlong handle) {
    return guarded(env, [&] {
        return static_cast<jint>(edgevit_image_size(sessions().find(handle)->session));
    });
}

jint native_class_count(JNIEnv* env, jclass, jlong handle) {
    return guarded(env, [&] {
        return static_cast<jint>(edgevit_class_count(sessions().find(handle)->session));
    });
}

jbyteArray native_label(JNIEnv* env, jclass, jlong handle, jint class_index) {
    return guarded(env, [&] {
        const std::shared_ptr<Opened> opened = sessions().find(handle);
        require(class_index >= 0, "the class index is negative");
        const char* label = edgevit_label(opened->session, static_cast<std::size_t>(class_index));
        require(label != nullptr, "the class index is not below the number of classes");
        return to_bytes(env, label);
    });
}

jint native_classify(JNIEnv* env, jclass, jlong handle, jobject pixels, jint begin, jint end,
                     jint width, jint height, jint row_stride, jint top_k, jintArray indices,
                     jfloatArray logits, jfloatArray probabilities) {
    return guarded(env, [&] {
        const std::shared_ptr<Opened> opened = sessions().find(handle);
        const edgevit_image image = image_in(env, pixels, begin, end, width, height, row_stride);
        require(top_k > 0, "topK must be 1 or more");
        require(indices != nullptr && logits != nullptr && probabilities != nullptr,
                "an array for the results is null");
        require(std::min({env->GetArrayLength(indices), env->GetArrayLength(logits),
                          env->GetArrayLength(probabilities)}) >= top_k,
                "an array for the results is shorter than topK");
        const std::lock_guard<std::mutex> turn(opened->turn);
        const std::size_t room = std::min(static_cast<std::size_t>(top_k), opened->results.size());
        const auto count = static_cast<jint>(classify(*opened, image, room));
        env->SetIntArrayRegion(indices, 0, count, opened->indices.data());
        env->SetFloatArrayRegion(logits, 0, count, opened->logits.data());
        env->SetFloatArrayRegion(probabilities, 0, count, opened->probabilities.data());
        return count;
    });
}

template <typename Function>
JNINativeMethod method(const char* name, const char* signature, Function* function) {
    // The desktop's jni.h has pointers to char here, the NDK's to const char.
    return {const_cast<char*>(name), const_cast<char*>(signature),
            reinterpret_cast<void*>(function)};
}

bool register_all(JNIEnv* env) {
    jclass exception = env->FindClass(kExceptionClass);
    if (exception == nullptr) {
        return false;
    }
    exception_constructor = env->GetMethodID(exception, "<init>", "(I[B)V");
    exception_class = static_cast<jclass>(env->NewGlobalRef(exception));
    env->DeleteLocalRef(exception);
    jclass natives = exception_constructor == nullptr || exception_class == nullptr
                         ? nullptr
                         : env->FindClass(kNativeClass);
    if (natives == nullptr) {
        return false;
    }
    const JNINativeMethod methods[] = {
        method("open", "([B[BI)J", native_open),
        method("close", "(J)V", native_close),
        method("imageSize", "(J)I", native_image_size),
        method("classCount", "(J)I", native_class_count),
        method("label", "(JI)[B", native_label),
        method("classify", "(JLjava/nio/ByteBuffer;IIIIII[I[F[F)I", native_classify),
    };
    const bool done = env->RegisterNatives(natives, methods, std::size(methods)) == JNI_OK;
    env->DeleteLocalRef(natives);
    return done;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) jint JNI_OnLoad(JavaVM* vm, void*) {
    JNIEnv* env = nullptr;
    if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_6) != JNI_OK ||
        !register_all(env)) {
        return JNI_ERR;
    }
    return JNI_VERSION_1_6;
}
