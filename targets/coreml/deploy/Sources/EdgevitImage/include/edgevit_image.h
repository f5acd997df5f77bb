// From 8-bit pixels of any size to those of the network's input, bit for bit as edgevit measured
// it, and from the network's answer to the best classes. The work is libedgevit's (core/).
//
// Plain C. No state is kept between calls, so any thread may call at any time.
#ifndef EDGEVIT_IMAGE_H
#define EDGEVIT_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// How the pixels lie in memory. Of RGBA and BGRA the fourth byte is not looked at; NV12 has a plane
// of Y and one of U and V in turn, of half the sides, rounded up.
static const int32_t EDGEVIT_ORDER_RGBA = 0;
static const int32_t EDGEVIT_ORDER_BGRA = 1;
static const int32_t EDGEVIT_ORDER_NV12 = 2;

// What the numbers of NV12 mean; core/frame.h has the arithmetic.
static const int32_t EDGEVIT_COLOUR_BT601_LIMITED = 0;
static const int32_t EDGEVIT_COLOUR_BT601_FULL = 1;
static const int32_t EDGEVIT_COLOUR_BT709_LIMITED = 2;
static const int32_t EDGEVIT_COLOUR_BT709_FULL = 3;

static const int32_t EDGEVIT_BICUBIC = 0;
static const int32_t EDGEVIT_BILINEAR = 1;
static const int32_t EDGEVIT_NEAREST = 2;
static const int32_t EDGEVIT_BOX = 3;
static const int32_t EDGEVIT_AREA = 4;

// What a picture is resized to before the crop: nothing; its shorter side to a length; the smallest
// size of its shape that covers a size; that size itself; the largest that it holds, then padded.
static const int32_t EDGEVIT_RESIZE_NONE = 0;
static const int32_t EDGEVIT_RESIZE_SHORTER = 1;
static const int32_t EDGEVIT_RESIZE_FILL = 2;
static const int32_t EDGEVIT_RESIZE_EXACT = 3;
static const int32_t EDGEVIT_RESIZE_FIT = 4;

// The model's input channels. The pixels of a BGR model are RGB all the same: Core ML turns them.
static const int32_t EDGEVIT_RGB = 0;
static const int32_t EDGEVIT_BGR = 1;
static const int32_t EDGEVIT_GREY = 2;

// Not named as in edgevit.h, whose codes are others.
static const int32_t EDGEVIT_IMAGE_OK = 0;
static const int32_t EDGEVIT_IMAGE_BAD_ARGUMENT = 1;  // a mistake of the caller
static const int32_t EDGEVIT_IMAGE_REFUSED = 2;  // the image is too small, too large or too thin
static const int32_t EDGEVIT_IMAGE_OUT_OF_MEMORY = 3;
static const int32_t EDGEVIT_IMAGE_INTERNAL = 4;
static const int32_t EDGEVIT_IMAGE_NOT_FINITE = 5;  // the network answered NaN or infinity

// Rows from top to bottom, stride_bytes from one to the next; at most 64 million pixels.
typedef struct {
    const uint8_t* pixels;
    size_t width;
    size_t height;
    size_t stride_bytes;
    int32_t order;
    int32_t colour;              // of NV12
    const uint8_t* chroma;       // of NV12: its second plane
    size_t chroma_stride_bytes;  // of NV12
    int32_t rotation_degrees;    // 0, 90, 180 or 270, clockwise: what makes it upright
    int32_t is_mirrored;         // not 0: left and right are swapped once it is upright
} edgevit_pixels;

// `preprocessing` of the artifact's manifest.json.
typedef struct {
    int32_t height;  // of the network's input, 1 to 4096, as its width
    int32_t width;
    int32_t resize;         // EDGEVIT_RESIZE_...
    int32_t resize_height;  // 1 to 16384, as its width; of EDGEVIT_RESIZE_SHORTER one length twice
    int32_t resize_width;
    int32_t interpolation;  // EDGEVIT_BICUBIC to EDGEVIT_AREA
    int32_t antialias;      // 0: bicubic and bilinear are not widened when shrinking
    int32_t channels;       // EDGEVIT_RGB, EDGEVIT_BGR or EDGEVIT_GREY
    int32_t pads_after;     // of EDGEVIT_RESIZE_FIT; 0: the picture lies in the middle
    uint8_t pad_color[4];   // of EDGEVIT_RESIZE_FIT, one a channel in the model's order
} edgevit_preprocessing;

// Makes the image upright, resizes, crops and pads: `height` rows of `width` pixels, RGB or grey, to
// `out`, which has size_bytes = height * width * 3, or * 1.
//
// Returns EDGEVIT_IMAGE_OK, or another code with `out` unspecified and the reason in `message`:
// text ended by a zero, cut to message_size_bytes. `message` may be null when that is 0.
int32_t edgevit_prepare(const edgevit_pixels* image, const edgevit_preprocessing* preprocessing,
                        uint8_t* out, size_t size_bytes, char* message, size_t message_size_bytes);

// The `count` best of `classes` scores, best first, of equal ones the lower class first, to
// `indices`, and their probabilities to `probabilities`: the softmax of logits, or, where
// `are_logits` is 0, the scores as they are. `count` is at most `classes`.
//
// Returns and writes as edgevit_prepare does.
int32_t edgevit_best(const float* scores, size_t classes, int32_t are_logits, size_t count,
                     int32_t* indices, double* probabilities, char* message,
                     size_t message_size_bytes);

#ifdef __cplusplus
}
#endif

#endif
