// edgevit-harness: what an artifact is worth on this machine, as one JSON.
#include <csignal>
#include <initializer_list>

#include "guard.h"
#include "harness.h"

namespace {

int work(int argc, const char* const* argv) {
    for (const int signal : {
             SIGINT,
             SIGTERM,
#ifdef SIGHUP
             SIGHUP,
#endif
         }) {
        std::signal(signal, [](int) { edgevit::request_stop(); });
    }
    return edgevit::run_command_line(argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
    return edgevit::run_guarded(
        [=] { return work(argc, argv); },
        [=](std::int64_t process) { edgevit::remove_half_written(argc, argv, process); });
}
