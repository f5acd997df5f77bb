// A stand-in, not Apple's SDK: the few declarations of CoreVideo (and CoreFoundation) that
// targets/coreml uses, written from its documentation. A compile against it catches typos, only.
#pragma once

#include <Foundation/Foundation.h>

typedef const struct __CFAllocator *CFAllocatorRef;
typedef const struct __attribute__((objc_bridge(NSDictionary))) __CFDictionary *CFDictionaryRef;
typedef const struct __attribute__((objc_bridge(NSString))) __CFString *CFStringRef;
typedef uint32_t OSType;
typedef int32_t CVReturn;
typedef struct __CVBuffer *CVPixelBufferRef;
typedef uint64_t CVPixelBufferLockFlags;

enum : CVReturn { kCVReturnSuccess = 0 };
enum : OSType { kCVPixelFormatType_32BGRA = 'BGRA', kCVPixelFormatType_OneComponent8 = 'L008' };

#ifdef __cplusplus
extern "C" {
#endif
extern const CFAllocatorRef kCFAllocatorDefault;
extern const CFStringRef kCVPixelBufferIOSurfacePropertiesKey;

CVReturn CVPixelBufferCreate(CFAllocatorRef allocator, size_t width, size_t height,
                             OSType pixelFormatType, CFDictionaryRef pixelBufferAttributes,
                             CVPixelBufferRef *pixelBufferOut);
void CVPixelBufferRelease(CVPixelBufferRef texture);
CVReturn CVPixelBufferLockBaseAddress(CVPixelBufferRef pixelBuffer, CVPixelBufferLockFlags flags);
CVReturn CVPixelBufferUnlockBaseAddress(CVPixelBufferRef pixelBuffer,
                                        CVPixelBufferLockFlags flags);
void *CVPixelBufferGetBaseAddress(CVPixelBufferRef pixelBuffer);
size_t CVPixelBufferGetBytesPerRow(CVPixelBufferRef pixelBuffer);
#ifdef __cplusplus
}
#endif
