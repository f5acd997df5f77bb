// edgevit-harness: what an artifact is worth on this machine, as one JSON.
#include <csignal>
#include <initializer_list>

#include "harness.h"

int main(int argc, char** argv) {
    for (const int signal : {SIGINT, SIGTERM}) {
        std::signal(signal, [](int) { edgevit::request_stop(); });
    }
    return edgevit::run_command_line(argc, argv);
}
