// Runs the harness's work where its death does not go unexplained.
#pragma once

#include <cstdint>
#include <functional>

namespace edgevit {

// Calls `work` in a child process and returns its exit code. A child that a signal kills is told of
// on stderr and ends with 1, what it had half written is removed by `clean`, which is given the
// child's process id. SIGINT, SIGTERM and SIGHUP go on to the child, which must handle them; if
// this process is killed, so is the child. Where the system has no such processes (Windows,
// Apple's, whose libraries do not live through a fork) `work` is called here.
int run_guarded(const std::function<int()>& work,
                const std::function<void(std::int64_t process)>& clean);

}  // namespace edgevit
