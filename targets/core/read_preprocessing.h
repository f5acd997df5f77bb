// The preprocessing of a manifest.
#pragma once

#include <cstdint>

#include "core/json_reader.h"
#include "core/preprocessing.h"

namespace edgevit {

// Raises InputError naming the key for a value that is missing, of a wrong type or out of range,
// and for one that `version`, the manifest's, did not have.
Preprocessing read_preprocessing(const JsonReader& reader, std::int64_t version);

}  // namespace edgevit
