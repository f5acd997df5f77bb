// Whether the operator that stands for a program of an NPU can be handed to LiteRT.
#pragma once

#include "model_reader.h"

namespace edgevit::litert {

// The custom code of that operator.
constexpr const char* kDispatchCode = "DISPATCH_OP";

// Raises InputError unless the operator's options are a FlexBuffer map of exactly its three entries
// (bytecode_offset, bytecode_size, name), which LiteRT reads without looking, and the program that
// they name lies in the file.
void check_dispatch(const FlatFile& file, const ModelOperator& made);

}  // namespace edgevit::litert
