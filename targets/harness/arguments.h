// The command line.
#pragma once

#include <optional>
#include <string>

#include "request.h"

namespace edgevit {

// What a command line asks for: a run, or a text to print and be done (--help, --version).
struct Command {
    std::optional<Request> run;
    std::string text;
};

// Raises InputError for an unknown or missing option, a value out of range, or a file of --request
// that is no request.
Command parse_command_line(int argc, const char* const* argv);

}  // namespace edgevit
