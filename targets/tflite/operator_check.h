// Whether an operator can do with its tensors what its kind says.
#pragma once

#include "model_reader.h"

namespace edgevit::litert {

// Raises InputError where the shapes, types, constants or options of an operator contradict each
// other. Kinds that edgevit's writer does not use pass: LiteRT compares them with what it knows.
void check_operator(const FlatFile& file, const ModelGraph& graph, const ModelOperator& made);

}  // namespace edgevit::litert
