// The whole program behind main(), so that tests can call it.
#pragma once

#include <cstdint>

namespace edgevit {

// Does what the command line asks for and returns the exit code; errors go to stderr.
int run_command_line(int argc, const char* const* argv);

// Removes what a process of that id, which died in run_command_line(), had begun to write.
void remove_half_written(int argc, const char* const* argv, std::int64_t process) noexcept;

// Makes a running evaluation end at the next image with an error. Safe in a signal handler.
void request_stop();

}  // namespace edgevit
