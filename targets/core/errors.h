// Every error raised on purpose, and the exit code that each one ends the harness with.
//
//   Error              1   something inside went wrong
//   ├── InputError     2   bad usage or bad input: a file, an option, an image set
//   ├── CallError      1   code called the library wrongly: a null pointer, a step left out
//   └── ToolMissing    4   a runtime library or device that the command needs is not here
//
// They mirror edgevit/errors.py, but for CallError, which is libedgevit's own. A message says what
// is wrong, where, and what to do about it.
#pragma once

#include <stdexcept>
#include <string>

namespace edgevit {

class Error : public std::runtime_error {
  public:
    explicit Error(const std::string& message, int exit_code = 1)
        : std::runtime_error(message), exit_code_(exit_code) {}

    int exit_code() const noexcept { return exit_code_; }

  private:
    int exit_code_;
};

class InputError : public Error {
  public:
    explicit InputError(const std::string& message) : Error(message, 2) {}
};

class CallError : public Error {
  public:
    explicit CallError(const std::string& message) : Error(message) {}
};

class ToolMissing : public Error {
  public:
    explicit ToolMissing(const std::string& message) : Error(message, 4) {}
};

}  // namespace edgevit
