// The files of an NPU's artifact: one program for each system-on-chip (SoC), and which of them
// runs.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/manifest.h"

namespace edgevit::npu {

// The SoCs that the manifest's option soc names ("SM8750,SM8650"). Raises InputError without one.
std::vector<std::string> socs_of(const Manifest& manifest);

// "SM8750, SM8650".
std::string listed(const std::vector<std::string>& socs);

// The program for one of socs_of(manifest), MANUFACTURER_SOC.tflite in the artifact's folder.
// Raises InputError when it is missing, and when the folder holds what is neither a program for one
// of those SoCs nor portable.tflite, such as a program for an SoC that the manifest does not name.
std::filesystem::path program_for(const Manifest& manifest, const std::string& manufacturer,
                                  const std::string& soc);

// The model of this machine's SoC as Android tells it (ro.soc.model, Android 12 and later); empty
// where it is not told.
std::string soc_of_this_machine();

}  // namespace edgevit::npu
