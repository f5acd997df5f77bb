// Whether a .tflite file can be handed to a runtime that reads it without looking.
#pragma once

#include <string>

#include "core/bytes.h"

namespace edgevit::litert {

// Reads the whole model as LiteRT does, but with every bound checked: tables, tensors, constants,
// quantization, operators with what they read and make, signatures. Raises InputError naming
// `where` and what is wrong for a file that is cut, damaged or of a kind that edgevit does not
// write (several subgraphs, control flow, sparse or external tensors).
//
// What it lets through may still be refused by LiteRT, with a status.
void check_model(ByteView model, const std::string& where);

}  // namespace edgevit::litert
