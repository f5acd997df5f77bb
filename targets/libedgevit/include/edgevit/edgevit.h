/* libedgevit: runs an artifact folder that `edgevit compile` wrote. Plain C (C99 or newer).
 *
 *     edgevit_error error;
 *     edgevit_session *session = NULL;
 *     if (edgevit_open("build/tflite", NULL, &session, &error) != EDGEVIT_OK) puts(error.message);
 *     edgevit_image image = {pixels, 640, 480, 640 * 4, EDGEVIT_RGBA8888};
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
 */
#ifndef EDGEVIT_EDGEVIT_H
#define EDGEVIT_EDGEVIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define EDGEVIT_API __attribute__((visibility("default")))
#else
#define EDGEVIT_API
#endif

#ifdef __cplusplus
extern "C" {
#define EDGEVIT_NOEXCEPT noexcept
#else
#define EDGEVIT_NOEXCEPT
#endif

typedef int32_t edgevit_status;
enum {
    EDGEVIT_OK = 0,
    EDGEVIT_FAILED = 1,       /* the runtime refused a call, or something inside went wrong */
    EDGEVIT_BAD_INPUT = 2,    /* manifest, artifact, option or image: cannot be used */
    EDGEVIT_BAD_CALL = 3,     /* a mistake of the caller: a null pointer, a wrong size or order */
    EDGEVIT_TOOL_MISSING = 4, /* the runtime's library, device or back-end is not here */
    EDGEVIT_BUSY = 5,         /* another call is using the session */
    EDGEVIT_OUT_OF_MEMORY = 6
};

/* What went wrong. `message` is UTF-8, ended by a zero; what does not fit is cut off. */
typedef struct edgevit_error {
    edgevit_status code;
    char message[1020];
} edgevit_error;

/* An option that one back-end takes, by name. A name or value that the back-end does not take is
 * EDGEVIT_BAD_INPUT, with a message that says what it takes. */
typedef struct edgevit_runtime_option {
    const char* name;  /* "compute_units" */
    const char* value; /* "cpu" */
} edgevit_runtime_option;

/* How to open. Start from edgevit_options_init(): it sets struct_size_bytes, and every other field
 * to 0 or NULL, which means the default. Later versions add fields at the end: a library takes the
 * options of an older header, not those of a newer one. */
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
    /* runtime_option_count options of the back-end; targets/README.md lists them */
    const edgevit_runtime_option* runtime_options;
    size_t runtime_option_count;
} edgevit_options;

/* An opened artifact and all memory that running it takes. */
typedef struct edgevit_session edgevit_session;

/* The bytes of a pixel in memory, 8 bits a channel. Alpha is not looked at. */
typedef int32_t edgevit_pixel_format;
enum { EDGEVIT_RGB888 = 0, EDGEVIT_RGBA8888 = 1, EDGEVIT_BGRA8888 = 2 };

/* A picture: rows from top to bottom, already turned upright, in the colours of sRGB. */
typedef struct edgevit_image {
    const uint8_t* pixels;
    size_t width;        /* pixels, at least 1 */
    size_t height;       /* pixels, at least 1; width * height at most 64,000,000 */
    size_t stride_bytes; /* from one row to the next: width * 3 or 4 at least, 1 GiB at most */
    edgevit_pixel_format format;
} edgevit_image;

typedef struct edgevit_result {
    int32_t class_index; /* from 0 */
    float logit;         /* what the network answered; of a Core ML classifier a probability */
    const char* label;   /* UTF-8, owned by the session */
} edgevit_result;

/* How an element of a tensor is stored. */
typedef int32_t edgevit_dtype;
enum { EDGEVIT_INT8 = 0, EDGEVIT_UINT8 = 1, EDGEVIT_FLOAT16 = 2, EDGEVIT_FLOAT32 = 3 };

enum { EDGEVIT_MAX_RANK = 8 };

/* A tensor of the artifact. real value = (stored - zero_point) * scale. Set struct_size_bytes
 * before the call; later versions add fields at the end, and fill as many as the caller knows. */
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
} edgevit_tensor;

/* "0.1.0": of the library that was loaded. */
EDGEVIT_API const char* edgevit_version(void) EDGEVIT_NOEXCEPT;

/* "EDGEVIT_OK", ...; "unknown" for a number that is no status. */
EDGEVIT_API const char* edgevit_status_name(edgevit_status status) EDGEVIT_NOEXCEPT;

/* The defaults. NULL does nothing. */
EDGEVIT_API void edgevit_options_init(edgevit_options* options) EDGEVIT_NOEXCEPT;

/* Reads FOLDER/manifest.json, checks the artifact's sha256 and loads it into the runtime. `options`
 * may be NULL. On success *session is the caller's, to be closed; otherwise it is NULL. */
EDGEVIT_API edgevit_status edgevit_open(const char* folder, const edgevit_options* options,
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

/* Resizes, crops, normalises and quantizes as the manifest says, bit for bit as the accuracy was
 * measured, and hands the tensor to the runtime. */
EDGEVIT_API edgevit_status edgevit_preprocess(edgevit_session* session, const edgevit_image* image,
                                              edgevit_error* error) EDGEVIT_NOEXCEPT;

/* Hands the runtime an input tensor that the caller made: edgevit_input_size_bytes() bytes, in the
 * manifest's type and layout. Instead of edgevit_preprocess. */
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
 * The last inference's answer as real numbers, one a class: `count` must be
 * edgevit_class_count(). */
EDGEVIT_API edgevit_status edgevit_logits(edgevit_session* session, float* logits, size_t count,
                                          edgevit_error* error) EDGEVIT_NOEXCEPT;

/* The same as probabilities: the softmax of the logits, or a Core ML classifier's own. */
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
