// Written by CMake for a target whose back-end this build leaves out.
#include "backend.h"

namespace {

[[maybe_unused]] const bool registered =
    edgevit::register_left_out("@name@", R"reason(@reason@)reason");

}  // namespace
