// A stand-in, not Apple's SDK: the few declarations of Core ML that targets/coreml uses, written
// from its documentation. A compile against it catches typos and missing availability checks, only.
#pragma once

#include <CoreVideo/CoreVideo.h>
#include <Foundation/Foundation.h>

typedef enum MLFeatureType : NSInteger {
    MLFeatureTypeImage = 4,
    MLFeatureTypeMultiArray = 5,
    MLFeatureTypeDictionary = 6,
} MLFeatureType;

typedef enum MLMultiArrayDataType : NSInteger {
    MLMultiArrayDataTypeDouble = 0x10040,
    MLMultiArrayDataTypeFloat32 = 0x10020,
    MLMultiArrayDataTypeFloat16 = 0x10010,
    MLMultiArrayDataTypeInt32 = 0x20020,
} MLMultiArrayDataType;

typedef enum MLComputeUnits : NSInteger {
    MLComputeUnitsCPUOnly = 0,
    MLComputeUnitsCPUAndGPU = 1,
    MLComputeUnitsAll = 2,
    MLComputeUnitsCPUAndNeuralEngine EDGEVIT_STUB_MACOS(13.0) EDGEVIT_STUB_IOS(16.0) = 3,
} MLComputeUnits;

@interface MLMultiArray : NSObject
- (instancetype)initWithShape:(NSArray<NSNumber *> *)shape
                     dataType:(MLMultiArrayDataType)dataType
                        error:(NSError **)error;
@property (readonly, nonatomic) MLMultiArrayDataType dataType;
@property (readonly, nonatomic) NSArray<NSNumber *> *shape;
@property (readonly, nonatomic) NSArray<NSNumber *> *strides;
@property (readonly, nonatomic) NSInteger count;
- (void)getBytesWithHandler:(void(__attribute__((noescape)) ^)(const void *bytes,
                                                               NSInteger size))handler
    API_AVAILABLE(macos(12.3), ios(15.4));
- (void)getMutableBytesWithHandler:(void(__attribute__((noescape)) ^)(
                                       void *mutableBytes, NSInteger size,
                                       NSArray<NSNumber *> *strides))handler
    API_AVAILABLE(macos(12.3), ios(15.4));
@end

@interface MLFeatureValue : NSObject
+ (instancetype)featureValueWithPixelBuffer:(CVPixelBufferRef)value;
+ (instancetype)featureValueWithMultiArray:(MLMultiArray *)value;
@property (readonly, nonatomic, getter=isUndefined) BOOL undefined;
@property (readonly, nonatomic) MLMultiArray *multiArrayValue;
@property (readonly, nonatomic) NSDictionary<id, NSNumber *> *dictionaryValue;
@end

@protocol MLFeatureProvider
- (MLFeatureValue *)featureValueForName:(NSString *)featureName;
@end

@interface MLDictionaryFeatureProvider : NSObject <MLFeatureProvider>
- (instancetype)initWithDictionary:(NSDictionary<NSString *, id> *)dictionary
                             error:(NSError **)error;
@end

@interface MLImageConstraint : NSObject
@property (readonly, nonatomic) NSInteger pixelsHigh;
@property (readonly, nonatomic) NSInteger pixelsWide;
@property (readonly, nonatomic) OSType pixelFormatType;
@end

@interface MLMultiArrayConstraint : NSObject
@property (readonly, nonatomic) NSArray<NSNumber *> *shape;
@property (readonly, nonatomic) MLMultiArrayDataType dataType;
@end

@interface MLFeatureDescription : NSObject
@property (readonly, nonatomic, copy) NSString *name;
@property (readonly, nonatomic) MLFeatureType type;
@property (readonly, nonatomic) MLImageConstraint *imageConstraint;
@property (readonly, nonatomic) MLMultiArrayConstraint *multiArrayConstraint;
@end

@interface MLModelDescription : NSObject
@property (readonly, nonatomic)
    NSDictionary<NSString *, MLFeatureDescription *> *inputDescriptionsByName;
@property (readonly, nonatomic)
    NSDictionary<NSString *, MLFeatureDescription *> *outputDescriptionsByName;
@end

@interface MLModelConfiguration : NSObject
@property (readwrite) MLComputeUnits computeUnits;
@end

@interface MLPredictionOptions : NSObject
@end

@interface MLModel : NSObject
+ (instancetype)modelWithContentsOfURL:(NSURL *)url
                         configuration:(MLModelConfiguration *)configuration
                                 error:(NSError **)error;
+ (NSURL *)compileModelAtURL:(NSURL *)modelURL
                       error:(NSError **)error
    __attribute__((availability(macos, introduced = 10.13, deprecated = 11.0)))
    __attribute__((availability(ios, introduced = 11.0, deprecated = 14.0)));
@property (readonly, nonatomic) MLModelDescription *modelDescription;
- (id<MLFeatureProvider>)predictionFromFeatures:(id<MLFeatureProvider>)input
                                        options:(MLPredictionOptions *)options
                                          error:(NSError **)error;
@end

@protocol MLComputeDeviceProtocol <NSObject>
@end

API_AVAILABLE(macos(14.0), ios(17.0))
@interface MLCPUComputeDevice : NSObject <MLComputeDeviceProtocol>
@end

API_AVAILABLE(macos(14.0), ios(17.0))
@interface MLGPUComputeDevice : NSObject <MLComputeDeviceProtocol>
@end

API_AVAILABLE(macos(14.0), ios(17.0))
@interface MLNeuralEngineComputeDevice : NSObject <MLComputeDeviceProtocol>
@end

API_AVAILABLE(macos(14.4), ios(17.4))
@interface MLModelStructureProgramOperation : NSObject
@property (readonly, copy, nonatomic) NSString *operatorName;
@end

API_AVAILABLE(macos(14.4), ios(17.4))
@interface MLModelStructureProgramBlock : NSObject
@property (readonly, copy, nonatomic) NSArray<MLModelStructureProgramOperation *> *operations;
@end

API_AVAILABLE(macos(14.4), ios(17.4))
@interface MLModelStructureProgramFunction : NSObject
@property (readonly, strong, nonatomic) MLModelStructureProgramBlock *block;
@end

API_AVAILABLE(macos(14.4), ios(17.4))
@interface MLModelStructureProgram : NSObject
@property (readonly, copy, nonatomic)
    NSDictionary<NSString *, MLModelStructureProgramFunction *> *functions;
@end

API_AVAILABLE(macos(14.4), ios(17.4))
@interface MLModelStructure : NSObject
@property (readonly, strong, nonatomic) MLModelStructureProgram *program;
@end

API_AVAILABLE(macos(14.4), ios(17.4))
@interface MLComputePlanDeviceUsage : NSObject
@property (readonly, strong, nonatomic) id<MLComputeDeviceProtocol> preferredComputeDevice;
@end

API_AVAILABLE(macos(14.4), ios(17.4))
@interface MLComputePlan : NSObject
+ (void)loadContentsOfURL:(NSURL *)url
            configuration:(MLModelConfiguration *)configuration
        completionHandler:(void (^)(MLComputePlan *computePlan, NSError *error))handler;
- (MLComputePlanDeviceUsage *)computeDeviceUsageForMLProgramOperation:
    (MLModelStructureProgramOperation *)operation;
@property (readonly, strong, nonatomic) MLModelStructure *modelStructure;
@end
