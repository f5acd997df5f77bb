// What TensorRT made of the graph: the engine's layers, what each reads and how long it takes.
// Plain C++: reads the JSON of IEngineInspector.
#pragma once

#include <map>
#include <string>

#include "backend.h"

namespace edgevit::tensorrt {

// Layer name -> microseconds over all runs.
using LayerTimes = std::map<std::string, double>;

// "int8", "float16", "float32" or "other" for a format as the inspector words it, such as "Int8",
// "Half" or "Thirty-two wide channel vectorized row major Int8 format".
std::string precision_of(const std::string& format);

// `inspector_json`: getEngineInformation(kJSON) of a plan built with detailed verbosity, by
// TensorRT 10 ("Format/Datatype" of a tensor) or 11 ("DataType").
//
// A layer's precision is the narrowest type among its inputs: "int8" means that it computes on, or
// converts, INT8 values. An engine runs on the GPU as a whole, so every layer is delegated, in one
// partition. Raises Error when the text is no such JSON.
OpReport report_layers(const std::string& inspector_json, const LayerTimes& times, int runs);

}  // namespace edgevit::tensorrt
