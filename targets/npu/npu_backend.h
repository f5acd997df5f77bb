// What every back-end for a phone's NPU is made of: LiteRT, asked for the NPU alone, on the program
// that was compiled ahead of time for this phone's SoC. Nothing runs on the CPU instead: where the
// NPU cannot run all of it, opening fails and says why.
#pragma once

#include <memory>
#include <vector>

#include "backend.h"

namespace edgevit::npu {

// What the vendors differ in.
struct Vendor {
    const char* manufacturer;  // the first part of a program's file name
    const char* npu;           // what its NPU is called
    const char* dispatch;      // LiteRT's library for it
    const char* libraries;     // the vendor's own that must lie beside that one
};

// accelerator ("npu", for callers that name one), soc, dispatch_dir.
const std::vector<RuntimeOption>& runtime_options();

// The artifact is a folder of programs, or one file, the program for the one SoC that its manifest
// names, as `edgevit package` writes it. Raises InputError for a folder that is not what its
// manifest says, ToolMissing for an SoC without a program and where LiteRT, its dispatch library or
// the NPU is not here.
std::unique_ptr<Backend> open_npu(const Manifest& manifest, const BackendOptions& options,
                                  const Vendor& vendor);

}  // namespace edgevit::npu
