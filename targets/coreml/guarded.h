// Every call into Apple's frameworks goes through guarded(). Objective-C++, under ARC.
#pragma once

#import <Foundation/Foundation.h>

#include <string>

#include "core/errors.h"

#if !__has_feature(objc_arc)
#error "targets/coreml needs -fobjc-arc"
#endif

namespace edgevit::coreml {

inline std::string text(NSString* string) {
    const char* utf8 = string.UTF8String;
    return utf8 != nullptr ? utf8 : "";
}

inline NSString* ns_string(const std::string& utf8) {
    return [NSString stringWithUTF8String:utf8.c_str()];
}

// "WHAT: the framework's own message".
inline std::string failure(const std::string& what, NSError* error) {
    return what + ": " + (error != nil ? text(error.localizedDescription) : "no reason was given");
}

// Runs `action` in an autorelease pool of its own, without which a long run would gather what each
// frame leaves. An NSException, which nothing else in the harness catches, becomes an Error.
template <typename Action>
void guarded(const char* what, Action&& action) {
    std::string raised;
    @autoreleasepool {
        @try {
            action();
        } @catch (NSException* exception) {
            raised = text(exception.name) + ": " + text(exception.reason);
        }
    }
    if (!raised.empty()) {
        throw Error(std::string(what) + ": " + raised);
    }
}

}  // namespace edgevit::coreml
