// Pictures as binary PPM (P6, 8 bits a channel), the simplest format there is.
#pragma once

#include <filesystem>

#include "core/image.h"

// Raises edgevit::InputError naming the file for anything else.
edgevit::Image read_ppm(const std::filesystem::path& path);
