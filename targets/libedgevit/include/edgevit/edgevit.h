/* libedgevit: runs an artifact folder that `edgevit compile` wrote. Plain C (C99 or newer).
 *
 *     edgevit_error error;
 *     edgevit_session *session = NULL;
 *     if (edgevit_open("build/tflite", NULL, &session, &error) != EDGEVIT_OK) puts(error.message);
 *     edgevit_image image;
 *     edgevit_image_init(&image);
 *     image.format = EDGEVIT_RGBA8888;
 *     image.width = 640, image.height = 480;
 *     image.planes[0].data = pixels, image.planes[0].stride_bytes = 640 * 4;
 *     edgevit_result best[5];
 *     size_t count = 5;
 *     edgevit_classify(session, &image, best, &count, &error);
 *     edgevit_close(session, &error);
 *
 * Errors. A function that can fail returns an edgevit_status and fills `error`, which may be NULL:
 * the same code and a message that says what is wrong and what to do. After EDGEVIT_OK the message
 * is empty. No C++ exception leaves the library. What a failed call would have written to is
 * unspecified, and the session stays usable.
 *
 * Threads. A session serves one call at a time: a call that finds it in use returns EDGEVIT_BUSY
 * at once and changes nothing. Any thread may call; different sessions run at the same time. The
 * functions that take a const session may be called at any time before edgevit_close().
 *
 * Memory. Whatever the caller passes stays the caller's and is not kept after the call. The first
 * frame of a size makes the buffers; a frame whose size and pixel format were seen before
 * allocates nothing in the library itself (what the runtime does is the runtime's).
 *
 * Growth. A structure that begins with struct_size_bytes grows at its end: a library takes that of
 * an older header, with defaults for what it lacks, and refuses that of a newer one. The others
 * have reserved fields, which the library sets to 0. Processors have 64 bits: LiteRT knows no
 * others.
 */
#ifndef EDGEVIT_EDGEVIT_H
#define EDGEVIT_EDGEVIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(EDGEVIT_BUILDS_DLL)
#define EDGEVIT_API __declspec(dllexport)
#elif defined(_WIN32) && defined(EDGEVIT_USES_DLL)
#define EDGEVIT_API __declspec(dllimport)
#elif defined(__GNUC__) && !defined(_WIN32)
#define EDGEVIT_API __attribute__((visibility("default")))
#else
#define EDGEVIT_API
#endif

/* Swift imports the constants of an enum without a name as Int, where the fields are Int32. */
#if defined(__swift__)
#define EDGEVIT_CONSTANTS_BEGIN
#define EDGEVIT_CONSTANT(type, name, value) static const type name = value;
#define EDGEVIT_CONSTANTS_END
#else
#define EDGEVIT_CONSTANTS_BEGIN enum {
#define EDGEVIT_CONSTANT(type, name, value) name = value,
#define EDGEVIT_CONSTANTS_END \
    }                         \
    ;
#endif

#ifdef __cplusplus
extern "C" {
#define EDGEVIT_NOEXCEPT noexcept
#else
#define EDGEVIT_NOEXCEPT
#endif

typedef int32_t edgevit_status;
EDGEVIT_CONSTANTS_BEGIN
EDGEVIT_CONSTANT(edgevit_status, EDGEVIT_OK, 0)
/* The runtime refused a call, or something inside went wrong. */
EDGEVIT_CONSTANT(edgevit_status, EDGEVIT_FAILED, 1)
/* Manifest, artifact, option or image: cannot be used. */
EDGEVIT_CONSTANT(edgevit_status, EDGEVIT_BAD_INPUT, 2)
/* A mistake of the caller: a null pointer, a wrong size or order. */
EDGEVIT_CONSTANT(edgevit_status, EDGEVIT_BAD_CALL, 3)
/* The runtime's library, device or back-end is not here. */
EDGEVIT_CONSTANT(edgevit_status, EDGEVIT_TOOL_MISSING, 4)
/* Another call is using the session. */
EDGEVIT_CONSTANT(edgevit_status, EDGEVIT_BUSY, 5)
EDGEVIT_CONSTANT(edgevit_status, EDGEVIT_OUT_OF_MEMORY, 6)
EDGEVIT_CONSTANTS_END

/* What went wrong. `message` is UTF-8, ended by a zero; what does not fit is cut off. */
typedef struct edgevit_error {
    edgevit_status code;
    int32_t reserved[3];
    char message[1008];
} edgevit_error;

/* An option that one back-end takes, by name. A name or value that the back-end does not take is
 * EDGEVIT_BAD_INPUT, with a message that says what it takes. */
typedef struct edgevit_runtime_option {
    const char* name;  /* "compute_units" */
    const char* value; /* "cpu" */
} edgevit_runtime_option;

/* What happened, while a session is opened: for a log, not for a program to read. `message` is
 * UTF-8, valid during the call; the callback runs in the thread that opens. */
typedef int32_t edgevit_log_level;
EDGEVIT_CONSTANTS_BEGIN
EDGEVIT_CONSTANT(edgevit_log_level, EDGEVIT_LOG_INFO, 0)
EDGEVIT_CONSTANT(edgevit_log_level, EDGEVIT_LOG_WARNING, 1)
EDGEVIT_CONSTANTS_END
typedef void (*edgevit_log_callback)(void* user, edgevit_log_level level, const char* message);

/* How to open. Start from edgevit_options_init(): it sets struct_size_bytes, and every other field
 * to 0 or NULL, which means the default. */
typedef struct edgevit_options {
    size_t struct_size_bytes;    /* sizeof(edgevit_options): tells what the caller knows of it */
    const char* backend;         /* "tflite", "onnxruntime", ...; default: the manifest's target */
    int32_t threads;             /* of the runtime, 1 to 256; default 1 */
    const char* runtime_library; /* the runtime's shared library: a path, or a bare name without '/'
                                    that the system's loader finds, as in an Android app (for
                                    Core ML the path of a .mlmodelc); default: what the back-end's
                                    environment variable says */
    const char* compute_units;   /* the runtime option compute_units (Core ML) */
    const char* plan_cache;      /* the runtime option plan_cache (TensorRT) */
    /* runtime_option_count options of the back-end; docs/harness.md lists them */
    const edgevit_runtime_option* runtime_options;
    size_t runtime_option_count;
    const char* accelerator;  /* the runtime option accelerator (LiteRT): "cpu" (default), "gpu" or
                                 "npu"; opening fails where it cannot run all of the artifact */
    int32_t warmup_runs;      /* inferences on an input of zeros before opening is done, 0 to
                                 100,000: the first ones are slower. Default 0 */
    int32_t reserved;         /* 0 */
    edgevit_log_callback log; /* NULL: nothing is told */
    void* log_user;           /* handed to `log` */
} edgevit_options;

/* An opened artifact and all memory that running it takes. */
typedef struct edgevit_session edgevit_session;

/* How the pixels lie in memory, 8 bits a value. Alpha is not looked at. In the YUV formats two by
 * two pixels share one U and one V; those planes have half the sides of Y's, rounded up. */
typedef int32_t edgevit_pixel_format;
EDGEVIT_CONSTANTS_BEGIN
EDGEVIT_CONSTANT(edgevit_pixel_format, EDGEVIT_RGB888, 0)   /* planes[0] */
EDGEVIT_CONSTANT(edgevit_pixel_format, EDGEVIT_RGBA8888, 1) /* planes[0] */
EDGEVIT_CONSTANT(edgevit_pixel_format, EDGEVIT_BGRA8888, 2) /* planes[0] */
EDGEVIT_CONSTANT(edgevit_pixel_format, EDGEVIT_NV12, 3)     /* Y; U and V in turn */
EDGEVIT_CONSTANT(edgevit_pixel_format, EDGEVIT_NV21, 4)     /* Y; V and U in turn */
EDGEVIT_CONSTANT(edgevit_pixel_format, EDGEVIT_I420, 5)     /* Y; U; V */
/* Y; U; V, with pixel strides of their own: Android's YUV_420_888, CameraX's ImageProxy. */
EDGEVIT_CONSTANT(edgevit_pixel_format, EDGEVIT_YUV420, 6)
EDGEVIT_CONSTANTS_END

/* What the numbers of a YUV format mean. "Limited": Y from 16 to 235; "full": from 0 to 255.
 * Cameras of Android give BT.601 full (JFIF), those of Apple say it in the pixel format's name. The
 * exact arithmetic stands in core/frame.h. */
typedef int32_t edgevit_yuv_colour;
EDGEVIT_CONSTANTS_BEGIN
EDGEVIT_CONSTANT(edgevit_yuv_colour, EDGEVIT_BT601_LIMITED, 0)
EDGEVIT_CONSTANT(edgevit_yuv_colour, EDGEVIT_BT601_FULL, 1)
EDGEVIT_CONSTANT(edgevit_yuv_colour, EDGEVIT_BT709_LIMITED, 2)
EDGEVIT_CONSTANT(edgevit_yuv_colour, EDGEVIT_BT709_FULL, 3)
EDGEVIT_CONSTANTS_END

typedef struct edgevit_plane {
    const uint8_t* data;
    size_t stride_bytes;       /* from one row to the next, 1 GiB at most */
    size_t pixel_stride_bytes; /* from one value to the next, of YUV planes alone; 0: the format's
                                  own, 2 for the shared plane of NV12 and NV21, else 1 */
} edgevit_plane;

/* A picture, rows from top to bottom, in the colours of sRGB. Start from edgevit_image_init(). */
typedef struct edgevit_image {
    size_t struct_size_bytes; /* sizeof(edgevit_image) */
    size_t width;             /* pixels as they lie in memory, at least 1 */
    size_t height;            /* at least 1; width * height at most 64,000,000 */
    edgevit_pixel_format format;
    edgevit_yuv_colour colour; /* of YUV formats */
    int32_t rotation_degrees;  /* 0, 90, 180 or 270, clockwise: what makes the picture upright */
    int32_t is_mirrored;       /* not 0: then left and right are swapped, as of a front camera */
    edgevit_plane planes[3];
    /* The part to look at, in pixels as they lie in memory, before the rotation; no width and no
     * height: all of it. */
    size_t crop_left;
    size_t crop_top;
    size_t crop_width;
    size_t crop_height;
    uint64_t reserved[4]; /* 0 */
} edgevit_image;

typedef struct edgevit_result {
    int32_t class_index; /* from 0 */
    float logit;         /* NaN where the artifact answers with probabilities alone */
    float probability;   /* the softmax of the logits, or what the artifact answered */
    int32_t reserved;
    const char* label; /* UTF-8, owned by the session */
    uint64_t reserved_too[2];
} edgevit_result;

/* How an element of a tensor is stored. */
typedef int32_t edgevit_dtype;
EDGEVIT_CONSTANTS_BEGIN
EDGEVIT_CONSTANT(edgevit_dtype, EDGEVIT_INT8, 0)
EDGEVIT_CONSTANT(edgevit_dtype, EDGEVIT_UINT8, 1)
EDGEVIT_CONSTANT(edgevit_dtype, EDGEVIT_FLOAT16, 2)
EDGEVIT_CONSTANT(edgevit_dtype, EDGEVIT_FLOAT32, 3)
EDGEVIT_CONSTANTS_END

#define EDGEVIT_MAX_RANK 8

/* A tensor of the artifact. real value = (stored - zero_point) * scale. Set struct_size_bytes
 * before the call. */
typedef struct edgevit_tensor {
    size_t struct_size_bytes;        /* sizeof(edgevit_tensor) */
    const char* name;                /* UTF-8, owned by the session */
    size_t rank;                     /* 1 to EDGEVIT_MAX_RANK */
    int64_t shape[EDGEVIT_MAX_RANK]; /* `rank` sides, outermost first; 0 behind them */
    size_t element_count;            /* the product of the sides */
    size_t size_bytes;               /* as stored */
    edgevit_dtype dtype;
    float scale;        /* 0 where the tensor is not quantized */
    int32_t zero_point; /* 0 where the tensor is not quantized */
    int32_t reserved[5];
} edgevit_tensor;

/* "0.1.0": of the library that was loaded. */
EDGEVIT_API const char* edgevit_version(void) EDGEVIT_NOEXCEPT;

/* "EDGEVIT_OK", ...; "unknown" for a number that is no status. */
EDGEVIT_API const char* edgevit_status_name(edgevit_status status) EDGEVIT_NOEXCEPT;

/* The defaults. NULL does nothing. */
EDGEVIT_API void edgevit_options_init(edgevit_options* options) EDGEVIT_NOEXCEPT;
EDGEVIT_API void edgevit_image_init(edgevit_image* image) EDGEVIT_NOEXCEPT;

/* Reads FOLDER/manifest.json, checks the artifact's sha256 and loads it into the runtime. `options`
 * may be NULL. On success *session is the caller's, to be closed; otherwise it is NULL. */
EDGEVIT_API edgevit_status edgevit_open(const char* folder, const edgevit_options* options,
                                        edgevit_session** session,
                                        edgevit_error* error) EDGEVIT_NOEXCEPT;

/* The same of an artifact that is no folder: the text of its manifest.json, and the bytes of the
 * one file, as of an app's resources. Both are the caller's; the manifest may go after the call,
 * the artifact must stay as it is until edgevit_close(), for nothing is copied. EDGEVIT_BAD_INPUT
 * from a back-end that opens folders alone (of today's, all but LiteRT's). */
EDGEVIT_API edgevit_status edgevit_open_memory(const void* manifest, size_t manifest_size_bytes,
                                               const void* artifact, size_t artifact_size_bytes,
                                               const edgevit_options* options,
                                               edgevit_session** session,
                                               edgevit_error* error) EDGEVIT_NOEXCEPT;

/* The same of a part of an open file, as of an asset that lies in an APK without compression
 * (AssetFileDescriptor: its descriptor, start offset and length). The part is mapped, not copied;
 * the descriptor stays the caller's and may be closed after the call. Not in Windows. */
EDGEVIT_API edgevit_status edgevit_open_descriptor(const void* manifest, size_t manifest_size_bytes,
                                                   int descriptor, uint64_t offset_bytes,
                                                   uint64_t length_bytes,
                                                   const edgevit_options* options,
                                                   edgevit_session** session,
                                                   edgevit_error* error) EDGEVIT_NOEXCEPT;

/* Frees the session; NULL is no error. EDGEVIT_BUSY while another thread is inside: nothing was
 * freed, call again. No other call may begin once this one has. */
EDGEVIT_API edgevit_status edgevit_close(edgevit_session* session,
                                         edgevit_error* error) EDGEVIT_NOEXCEPT;

/* The whole way of a frame: edgevit_preprocess, edgevit_invoke, edgevit_top_k. */
EDGEVIT_API edgevit_status edgevit_classify(edgevit_session* session, const edgevit_image* image,
                                            edgevit_result* results, size_t* count,
                                            edgevit_error* error) EDGEVIT_NOEXCEPT;

/* Makes the picture upright RGB, then resizes, crops, normalises and quantizes as the manifest
 * says, bit for bit as the accuracy was measured, and hands the tensor to the runtime. */
EDGEVIT_API edgevit_status edgevit_preprocess(edgevit_session* session, const edgevit_image* image,
                                              edgevit_error* error) EDGEVIT_NOEXCEPT;

/* Hands the runtime an input tensor that the caller made: edgevit_input_size_bytes() bytes, in the
 * type and layout of edgevit_input_info(). Instead of edgevit_preprocess. */
EDGEVIT_API edgevit_status edgevit_set_input(edgevit_session* session, const void* tensor,
                                             size_t size_bytes,
                                             edgevit_error* error) EDGEVIT_NOEXCEPT;

/* Copies out the tensor that the last edgevit_preprocess made, edgevit_input_size_bytes() bytes. */
EDGEVIT_API edgevit_status edgevit_read_input(edgevit_session* session, void* tensor,
                                              size_t size_bytes,
                                              edgevit_error* error) EDGEVIT_NOEXCEPT;

/* One inference on the last input: the runtime's own call and nothing else, so that timing this
 * function times the runtime. */
EDGEVIT_API edgevit_status edgevit_invoke(edgevit_session* session,
                                          edgevit_error* error) EDGEVIT_NOEXCEPT;

/* Output `index` of the last inference, below edgevit_output_count(): as real numbers, `count` of
 * them (element_count), or as it is stored (size_bytes). */
EDGEVIT_API edgevit_status edgevit_output(edgevit_session* session, size_t index, float* values,
                                          size_t count, edgevit_error* error) EDGEVIT_NOEXCEPT;
EDGEVIT_API edgevit_status edgevit_output_bytes(edgevit_session* session, size_t index, void* bytes,
                                                size_t size_bytes,
                                                edgevit_error* error) EDGEVIT_NOEXCEPT;

/* What follows reads the output of a classifier, of shape [1, classes]. EDGEVIT_BAD_INPUT for an
 * artifact whose task is another, and when a number of the answer is NaN or infinite.
 *
 * The last inference's logits, one a class: `count` must be edgevit_class_count().
 * EDGEVIT_BAD_INPUT for an artifact that answers with probabilities alone. */
EDGEVIT_API edgevit_status edgevit_logits(edgevit_session* session, float* logits, size_t count,
                                          edgevit_error* error) EDGEVIT_NOEXCEPT;

/* The probabilities: the softmax of the logits, or what the artifact answered, where it ends in a
 * softmax of its own or is a Core ML classifier. */
EDGEVIT_API edgevit_status edgevit_probabilities(edgevit_session* session, float* probabilities,
                                                 size_t count,
                                                 edgevit_error* error) EDGEVIT_NOEXCEPT;

/* The best classes of the last inference, best first, of equal ones the lower index first.
 * *count is the room in `results`, at least 1, and becomes how many were written: never more than
 * edgevit_class_count(). */
EDGEVIT_API edgevit_status edgevit_top_k(edgevit_session* session, edgevit_result* results,
                                         size_t* count, edgevit_error* error) EDGEVIT_NOEXCEPT;

/* Facts of the artifact. They never change while the session is open; 0 or NULL for a NULL session
 * or an index out of range. Texts are owned by the session. */
/* The side of a square input, pixels; 0 where height and width differ: see edgevit_input_info. */
EDGEVIT_API size_t edgevit_image_size(const edgevit_session* session) EDGEVIT_NOEXCEPT;
EDGEVIT_API size_t edgevit_input_size_bytes(const edgevit_session* session) EDGEVIT_NOEXCEPT;
EDGEVIT_API size_t edgevit_output_count(const edgevit_session* session) EDGEVIT_NOEXCEPT;
EDGEVIT_API size_t edgevit_class_count(const edgevit_session* session) EDGEVIT_NOEXCEPT;
EDGEVIT_API const char* edgevit_label(const edgevit_session* session,
                                      size_t class_index) EDGEVIT_NOEXCEPT;
EDGEVIT_API const char* edgevit_backend(const edgevit_session* session) EDGEVIT_NOEXCEPT;
/* What runs it: "cpu", "gpu", "npu", or Core ML's compute units. */
EDGEVIT_API const char* edgevit_accelerator(const edgevit_session* session) EDGEVIT_NOEXCEPT;
/* 1 where the artifact answers with probabilities and has no logits, else 0. */
EDGEVIT_API int32_t edgevit_answers_probabilities(const edgevit_session* session) EDGEVIT_NOEXCEPT;

/* What the input and output `index` look like. Like the facts above, they never change. */
EDGEVIT_API edgevit_status edgevit_input_info(const edgevit_session* session,
                                              edgevit_tensor* tensor,
                                              edgevit_error* error) EDGEVIT_NOEXCEPT;
EDGEVIT_API edgevit_status edgevit_output_info(const edgevit_session* session, size_t index,
                                               edgevit_tensor* tensor,
                                               edgevit_error* error) EDGEVIT_NOEXCEPT;

/* The index of the output of that name. EDGEVIT_BAD_INPUT, naming those there are, for another. */
EDGEVIT_API edgevit_status edgevit_find_output(const edgevit_session* session, const char* name,
                                               size_t* index,
                                               edgevit_error* error) EDGEVIT_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
