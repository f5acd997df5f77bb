// Whether a .tflite file can be handed to a runtime that reads it without looking.
#pragma once

#include <string>

#include "core/bytes.h"

namespace edgevit::litert {

// Whose operators a file may hold: TFLite's own alone, or also the one that stands for a part of
// the graph compiled for an NPU (DISPATCH_OP), whose program lies behind the tables.
enum class Operators { builtin, dispatched_too };

// Reads the whole model as LiteRT does, but with every bound checked: tables, tensors, constants,
// quantization, operators with what they read and make, signatures. Raises InputError naming
// `where` and what is wrong for a file that is cut, damaged or of a kind that edgevit does not
// write (several subgraphs, control flow, sparse or external tensors).
//
// What it lets through may still be refused by LiteRT, with a status.
void check_model(ByteView model, const std::string& where,
                 Operators operators = Operators::builtin);

}  // namespace edgevit::litert
