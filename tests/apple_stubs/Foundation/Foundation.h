// A stand-in, not Apple's SDK: the few declarations of Foundation that targets/coreml uses, written
// from its documentation. A compile against it catches typos and missing availability checks, only.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EDGEVIT_STUB_MACOS(version) \
    __attribute__((availability(macos, introduced = version)))
#define EDGEVIT_STUB_IOS(version) __attribute__((availability(ios, introduced = version)))
// As Apple's: API_AVAILABLE(macos(14.4), ios(17.4)).
#define EDGEVIT_STUB_AVAILABLE_macos(version) EDGEVIT_STUB_MACOS(version)
#define EDGEVIT_STUB_AVAILABLE_ios(version) EDGEVIT_STUB_IOS(version)
#define API_AVAILABLE(first, second) EDGEVIT_STUB_AVAILABLE_##first EDGEVIT_STUB_AVAILABLE_##second

typedef signed char BOOL;
#define YES __objc_yes
#define NO __objc_no
#define nil nullptr
typedef long NSInteger;
typedef unsigned long NSUInteger;
typedef struct _NSZone NSZone;

@protocol NSObject
- (BOOL)isKindOfClass:(Class)aClass;
@end

@protocol NSCopying
@end

__attribute__((objc_root_class))
@interface NSObject <NSObject>
+ (instancetype)alloc;
- (instancetype)init;
+ (Class)class;
@end

@interface NSString : NSObject <NSCopying>
+ (instancetype)stringWithUTF8String:(const char *)utf8;
@property (readonly) const char *UTF8String;
- (BOOL)isEqualToString:(NSString *)other;
@end

@interface NSConstantString : NSString
@end

@interface NSNumber : NSObject <NSCopying>
+ (NSNumber *)numberWithLongLong:(long long)value;
@property (readonly) long long longLongValue;
@property (readonly) float floatValue;
@end

typedef struct {
    unsigned long state;
    __unsafe_unretained id *itemsPtr;
    unsigned long *mutationsPtr;
    unsigned long extra[5];
} NSFastEnumerationState;

@protocol NSFastEnumeration
- (NSUInteger)countByEnumeratingWithState:(NSFastEnumerationState *)state
                                  objects:(id __unsafe_unretained[])buffer
                                    count:(NSUInteger)length;
@end

@interface NSArray<__covariant ObjectType> : NSObject <NSFastEnumeration>
@property (readonly) NSUInteger count;
- (ObjectType)objectAtIndexedSubscript:(NSUInteger)index;
@end

@interface NSMutableArray<ObjectType> : NSArray<ObjectType>
+ (instancetype)array;
- (void)addObject:(ObjectType)object;
@end

@interface NSDictionary<__covariant KeyType, __covariant ObjectType> : NSObject <NSFastEnumeration>
+ (instancetype)dictionaryWithObjects:(const ObjectType[])objects
                              forKeys:(const KeyType<NSCopying>[])keys
                                count:(NSUInteger)count;
@property (readonly, copy) NSArray<ObjectType> *allValues;
- (ObjectType)objectForKeyedSubscript:(KeyType)key;
@end

@interface NSURL : NSObject
+ (NSURL *)fileURLWithPath:(NSString *)path isDirectory:(BOOL)isDirectory;
@end

@interface NSError : NSObject
@property (readonly, copy) NSString *localizedDescription;
@end

@interface NSException : NSObject
@property (readonly, copy) NSString *name;
@property (readonly, copy) NSString *reason;
@end

@interface NSFileManager : NSObject
@property (class, readonly, strong) NSFileManager *defaultManager;
- (BOOL)removeItemAtURL:(NSURL *)url error:(NSError **)error;
@end

@interface NSProcessInfo : NSObject
@property (class, readonly, strong) NSProcessInfo *processInfo;
@property (readonly, copy) NSString *operatingSystemVersionString;
@end
