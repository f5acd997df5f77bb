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
    edgevit_image image;
    edgevit_image_init(&image);
    image.width = static_cast<std::size_t>(width);
    image.height = static_cast<std::size_t>(height);
    image.format = EDGEVIT_RGBA8888;
    image.planes[0] = {memory + begin, static_cast<std::size_t>(row_stride), 0};
    return image;
}

// One plane of a frame: its buffer's position, limit, row stride and pixel stride.
edgevit_plane plane_in(JNIEnv* env, jobject buffer, const jint* numbers, std::int64_t width,
                       std::int64_t height) {
    require(buffer != nullptr, "a plane's buffer is null");
    const auto* memory = static_cast<const std::uint8_t*>(env->GetDirectBufferAddress(buffer));
    require(memory != nullptr, "a plane is no direct ByteBuffer");
    const jint begin = numbers[0], end = numbers[1], row = numbers[2], pixel = numbers[3];
    require(begin >= 0 && begin <= end && end <= env->GetDirectBufferCapacity(buffer),
            "a plane's position and limit do not lie in its buffer");
    require(row > 0 && pixel > 0, "a plane's row and pixel stride must be 1 or more");
    const std::int64_t needed = row * (height - 1) + pixel * (width - 1) + 1;
    if (needed > std::int64_t{end} - begin) {
        throw Failure{EDGEVIT_BAD_CALL, "a plane has " + std::to_string(end - begin) +
                                            " bytes left, its values are in " +
                                            std::to_string(needed)};
    }
    return {memory + begin, static_cast<std::size_t>(row), static_cast<std::size_t>(pixel)};
}

// Of the numbers that YuvFrame.fillGeometry() writes.
edgevit_image frame_in(JNIEnv* env, jobject y, jobject u, jobject v, jintArray geometry) {
    constexpr jsize kCount = 21;
    require(geometry != nullptr && env->GetArrayLength(geometry) == kCount,
            "the frame's numbers are not 21");
    jint numbers[kCount];
    env->GetIntArrayRegion(geometry, 0, kCount, numbers);
    check_pending(env);
    const jint width = numbers[12], height = numbers[13];
    require(width > 0 && height > 0, "width and height must be 1 or more");
    for (jsize i = 17; i < kCount; ++i) {
        require(numbers[i] >= 0, "the crop has a negative side");
    }
    edgevit_image image;
    edgevit_image_init(&image);
    image.width = static_cast<std::size_t>(width);
    image.height = static_cast<std::size_t>(height);
    image.format = EDGEVIT_YUV420;
    const std::int64_t half_width = (std::int64_t{width} + 1) / 2,
                       half_height = (std::int64_t{height} + 1) / 2;
    image.planes[0] = plane_in(env, y, numbers, width, height);
    image.planes[1] = plane_in(env, u, numbers + 4, half_width, half_height);
    image.planes[2] = plane_in(env, v, numbers + 8, half_width, half_height);
    image.rotation_degrees = numbers[14];
    image.is_mirrored = numbers[15];
    image.colour = numbers[16];
    image.crop_left = static_cast<std::size_t>(numbers[17]);
    image.crop_top = static_cast<std::size_t>(numbers[18]);
    image.crop_width = static_cast<std::size_t>(numbers[19]);
    image.crop_height = static_cast<std::size_t>(numbers[20]);
    return image;
}

// Classifies, and fills the first entries of `indices`, `logits` and `probabilities`; how many.
std::size_t classify(Opened& opened, const edgevit_image& image, std::size_t count) {
    edgevit_error error;
    check(edgevit_classify(opened.session, &image, opened.results.data(), &count, &error), error);
    for (std::size_t i = 0; i < count; ++i) {
        const edgevit_result& result = opened.results[i];
        opened.indices[i] = result.class_index;
        opened.logits[i] = result.logit;
        opened.probabilities[i] = result.probability;
    }
    return count;
}

// Names and values by turns.
std::vector<std::string> to_texts(JNIEnv* env, jobjectArray given) {
    require(given != nullptr, "the options are null");
    const jsize count = env->GetArrayLength(given);
    require(count % 2 == 0, "an option has no value");
    std::vector<std::string> texts;
    for (jsize i = 0; i < count; ++i) {
        auto utf8 = static_cast<jbyteArray>(env->GetObjectArrayElement(given, i));
        texts.push_back(to_text(env, utf8, "an option"));
        env->DeleteLocalRef(utf8);
    }
    return texts;
}

// Opens by `open`, which is given the options. The back-end is that of the manifest's target.
template <typename Open>
jlong opened_by(JNIEnv* env, jbyteArray runtime_library, jint threads, jobjectArray given,
                const Open& open) {
    const std::string library = to_text(env, runtime_library, "the runtime library");
    const std::vector<std::string> texts = to_texts(env, given);
    std::vector<edgevit_runtime_option> pairs;
    for (std::size_t i = 0; i < texts.size(); i += 2) {
        pairs.push_back({texts[i].c_str(), texts[i + 1].c_str()});
    }
    edgevit_options options;
    edgevit_options_init(&options);
    options.runtime_library = library.c_str();
    options.threads = threads;
    options.runtime_options = pairs.data();
    options.runtime_option_count = pairs.size();
    edgevit_session* session = nullptr;
    edgevit_error error;
    check(open(options, &session, &error), error);
    struct Closer {
        void operator()(edgevit_session* open) const { edgevit_close(open, nullptr); }
    };
    std::unique_ptr<edgevit_session, Closer> owner(session);
    auto opened = std::make_shared<Opened>(session);
    static_cast<void>(owner.release());
    return sessions().add(std::move(opened));
}

jlong native_open(JNIEnv* env, jclass, jbyteArray folder, jbyteArray runtime_library, jint threads,
                  jobjectArray options_given) {
    return guarded(env, [&]() -> jlong {
        const std::string path = to_text(env, folder, "the folder");
        return opened_by(
            env, runtime_library, threads, options_given,
            [&](const edgevit_options& options, edgevit_session** session, edgevit_error* error) {
                return edgevit_open(path.c_str(), &options, session, error);
            });
    });
}

jlong native_open_descriptor(JNIEnv* env, jclass, jbyteArray manifest, jint descriptor,
                             jlong offset, jlong length, jbyteArray runtime_library, jint threads,
                             jobjectArray options_given) {
    return guarded(env, [&]() -> jlong {
        require(manifest != nullptr, "the manifest is null");
        require(offset >= 0 && length >= 0, "offset or length is negative");
        std::vector<jbyte> text(static_cast<std::size_t>(env->GetArrayLength(manifest)));
        env->GetByteArrayRegion(manifest, 0, static_cast<jsize>(text.size()), text.data());
        check_pending(env);
        return opened_by(
            env, runtime_library, threads, options_given,
            [&](const edgevit_options& options, edgevit_session** session, edgevit_error* error) {
                // Of an empty vector too a pointer that is not null.
                text.reserve(1);
                return edgevit_open_descriptor(
                    text.data(), text.size(), descriptor, static_cast<std::uint64_t>(offset),
                    static_cast<std::uint64_t>(length), &options, session, error);
            });
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

// The output's description; its index was Java's.
edgevit_tensor output_info(const Opened& opened, jint index) {
    require(index >= 0, "the output's index is negative");
    edgevit_tensor tensor = {};
    tensor.struct_size_bytes = sizeof tensor;
    edgevit_error error;
    check(edgevit_output_info(opened.session, static_cast<std::size_t>(index), &tensor, &error),
          error);
    return tensor;
}

jbyteArray native_accelerator(JNIEnv* env, jclass, jlong handle) {
    return guarded(
        env, [&] { return to_bytes(env, edgevit_accelerator(sessions().find(handle)->session)); });
}

jint native_output_count(JNIEnv* env, jclass, jlong handle) {
    return guarded(env, [&] {
        return static_cast<jint>(edgevit_output_count(sessions().find(handle)->session));
    });
}

jbyteArray native_output_name(JNIEnv* env, jclass, jlong handle, jint index) {
    return guarded(env, [&] {
        const std::shared_ptr<Opened> opened = sessions().find(handle);
        return to_bytes(env, output_info(*opened, index).name);
    });
}

jintArray native_output_shape(JNIEnv* env, jclass, jlong handle, jint index) {
    return guarded(env, [&]() -> jintArray {
        const std::shared_ptr<Opened> opened = sessions().find(handle);
        const edgevit_tensor tensor = output_info(*opened, index);
        std::vector<jint> sides(tensor.shape, tensor.shape + tensor.rank);
        jintArray shape = env->NewIntArray(static_cast<jsize>(sides.size()));
        if (shape != nullptr) {
            env->SetIntArrayRegion(shape, 0, static_cast<jsize>(sides.size()), sides.data());
        }
        return shape;
    });
}

void native_output(JNIEnv* env, jclass, jlong handle, jint index, jfloatArray values) {
    guarded(env, [&] {
        const std::shared_ptr<Opened> opened = sessions().find(handle);
        require(values != nullptr, "the array for the values is null");
        const std::size_t count = output_info(*opened, index).element_count;
        std::vector<jfloat> found(count);
        edgevit_error error;
        const std::lock_guard<std::mutex> turn(opened->turn);
        check(edgevit_output(opened->session, static_cast<std::size_t>(index), found.data(), count,
                             &error),
              error);
        env->SetFloatArrayRegion(values, 0, static_cast<jsize>(count), found.data());
    });
}

// Classifies the picture and hands over the best of its classes; how many.
jint answer(JNIEnv* env, Opened& opened, const edgevit_image& image, jint top_k, jintArray indices,
            jfloatArray logits, jfloatArray probabilities) {
    require(top_k > 0, "topK must be 1 or more");
    require(indices != nullptr && logits != nullptr && probabilities != nullptr,
            "an array for the results is null");
    require(std::min({env->GetArrayLength(indices), env->GetArrayLength(logits),
                      env->GetArrayLength(probabilities)}) >= top_k,
            "an array for the results is shorter than topK");
    const std::lock_guard<std::mutex> turn(opened.turn);
    const std::size_t room = std::min(static_cast<std::size_t>(top_k), opened.results.size());
    const auto count = static_cast<jint>(classify(opened, image, room));
    env->SetIntArrayRegion(indices, 0, count, opened.indices.data());
    env->SetFloatArrayRegion(logits, 0, count, opened.logits.data());
    env->SetFloatArrayRegion(probabilities, 0, count, opened.probabilities.data());
    return count;
}

jint native_classify(JNIEnv* env, jclass, jlong handle, jobject pixels, jint begin, jint end,
                     jint width, jint height, jint row_stride, jint top_k, jintArray indices,
                     jfloatArray logits, jfloatArray probabilities) {
    return guarded(env, [&] {
        const std::shared_ptr<Opened> opened = sessions().find(handle);
        const edgevit_image image = image_in(env, pixels, begin, end, width, height, row_stride);
        return answer(env, *opened, image, top_k, indices, logits, probabilities);
    });
}

jint native_classify_yuv(JNIEnv* env, jclass, jlong handle, jobject y, jobject u, jobject v,
                         jintArray geometry, jint top_k, jintArray indices, jfloatArray logits,
                         jfloatArray probabilities) {
    return guarded(env, [&] {
        const std::shared_ptr<Opened> opened = sessions().find(handle);
        const edgevit_image image = frame_in(env, y, u, v, geometry);
        return answer(env, *opened, image, top_k, indices, logits, probabilities);
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
        method("open", "([B[BI[[B)J", native_open),
        method("openDescriptor", "([BIJJ[BI[[B)J", native_open_descriptor),
        method("accelerator", "(J)[B", native_accelerator),
        method("outputCount", "(J)I", native_output_count),
        method("outputName", "(JI)[B", native_output_name),
        method("outputShape", "(JI)[I", native_output_shape),
        method("output", "(JI[F)V", native_output),
        method("classifyYuv",
               "(JLjava/nio/ByteBuffer;Ljava/nio/ByteBuffer;Ljava/nio/ByteBuffer;[II[I[F[F)I",
               native_classify_yuv),
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
