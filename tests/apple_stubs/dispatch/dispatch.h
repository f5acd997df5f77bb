// A stand-in, not Apple's SDK: the semaphores of libdispatch that targets/coreml uses, which ARC
// counts as objects. A compile against it catches typos, only.
#pragma once

#include <Foundation/Foundation.h>

#define NSEC_PER_SEC 1000000000ull
#define DISPATCH_TIME_NOW (0ull)

typedef uint64_t dispatch_time_t;
@protocol OS_dispatch_semaphore <NSObject>
@end
typedef NSObject<OS_dispatch_semaphore> *dispatch_semaphore_t;

#ifdef __cplusplus
extern "C" {
#endif
dispatch_semaphore_t dispatch_semaphore_create(intptr_t value)
    __attribute__((ns_returns_retained));
intptr_t dispatch_semaphore_signal(dispatch_semaphore_t semaphore);
intptr_t dispatch_semaphore_wait(dispatch_semaphore_t semaphore, dispatch_time_t timeout);
dispatch_time_t dispatch_time(dispatch_time_t when, int64_t delta);
#ifdef __cplusplus
}
#endif
