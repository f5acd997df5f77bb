// Generated from edgevit/limits.py by tools/generate.py: change them there.
#pragma once

#include <cstdint>

namespace edgevit {

// Newest schema_version of manifest.json; older ones are read too.
inline constexpr std::int64_t kManifestSchemaVersion = 3;

// Size of a manifest.json.
inline constexpr std::int64_t kMaxManifestBytes = 16'777'216;

// Classes of a model, and so its labels.
inline constexpr std::int64_t kMaxClasses = 1'000'000;

// UTF-8 bytes of one label.
inline constexpr std::int64_t kMaxLabelBytes = 4096;

// Outputs of an artifact.
inline constexpr std::int64_t kMaxOutputs = 64;

// Values that are kept of each output of an image, spread evenly over it, to compare features.
inline constexpr std::int64_t kFeatureSamples = 2048;

// Dimensions of an artifact's input or output.
inline constexpr std::int64_t kMaxTensorRank = 8;

// Elements of an artifact's input or output.
inline constexpr std::int64_t kMaxTensorElements = 268'435'456;

// Height and width of the network's input, pixels.
inline constexpr std::int64_t kMaxImageSize = 4096;

// Length to which an image's shorter side is resized, pixels.
inline constexpr std::int64_t kMaxResizeSize = 16'384;

// Files and folders of an image set, links followed.
inline constexpr std::int64_t kMaxSetFiles = 20'000'000;

// Folders inside each other in an image set.
inline constexpr std::int64_t kMaxSetDepth = 64;

// Size of an encoded image file.
inline constexpr std::int64_t kMaxImageBytes = 67'108'864;

// Pixels of an image, before the resize.
inline constexpr std::int64_t kMaxImagePixels = 64'000'000;

// Pixels of an image after the resize, before the crop: a thin image grows the most.
inline constexpr std::int64_t kMaxResizedPixels = 268'435'456;

// Distance between two rows of an image in memory.
inline constexpr std::int64_t kMaxStrideBytes = 1'073'741'824;

// Files and folders of an artifact that is a folder.
inline constexpr std::int64_t kMaxTreeEntries = 10'000;

// Folders inside each other in such an artifact.
inline constexpr std::int64_t kMaxTreeDepth = 16;

// Size of all files of such an artifact.
inline constexpr std::int64_t kMaxTreeBytes = 4'294'967'296;

// Threads of a runtime.
inline constexpr std::int64_t kMaxThreads = 256;

// Inferences of the harness before the clock counts.
inline constexpr std::int64_t kMaxWarmup = 100'000;

// Images that a run of the harness may be limited to.
inline constexpr std::int64_t kMaxRunImages = 1'000'000'000;

// Length of a long run, seconds: the figures of every inference are kept in memory.
inline constexpr std::int64_t kMaxDurationS = 3600;

// Size of the harness's result.json.
inline constexpr std::int64_t kMaxResultBytes = 67'108'864;

// Size of a file of logits: a million images of a thousand classes take half of it.
inline constexpr std::int64_t kMaxLogitsBytes = 8'589'934'592;

}  // namespace edgevit
