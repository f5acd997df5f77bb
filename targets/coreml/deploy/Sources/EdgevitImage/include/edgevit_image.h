// From 8-bit pixels of any size to the network's square of RGB, bit for bit as edgevit measured it,
// and from the network's answer to the best classes. The work is libedgevit's (core/).
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
    int32_t image_size;     // 1 to 4096
    int32_t resize_size;    // image_size to 16384; 0: the image is cropped without a resize
    int32_t interpolation;  // EDGEVIT_BICUBIC or EDGEVIT_BILINEAR
} edgevit_preprocessing;

// Makes the image upright, resizes the shorter side and crops the centre: image_size rows of
// image_size RGB pixels to `rgb`, which has rgb_size_bytes = image_size * image_size * 3.
//
// Returns EDGEVIT_IMAGE_OK, or another code with `rgb` unspecified and the reason in `message`:
// text ended by a zero, cut to message_size_bytes. `message` may be null when that is 0.
int32_t edgevit_prepare(const edgevit_pixels* image, const edgevit_preprocessing* preprocessing,
                        uint8_t* rgb, size_t rgb_size_bytes, char* message,
                        size_t message_size_bytes);

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
