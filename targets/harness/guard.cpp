#include "guard.h"

#if defined(__linux__)
#define EDGEVIT_HAS_GUARD 1
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace edgevit {

#ifdef EDGEVIT_HAS_GUARD

namespace {

volatile sig_atomic_t child = 0;  // 0: not started yet
volatile sig_atomic_t early = 0;  // the signal that came before it was

void pass_on(int signal) {
    if (child > 0) {
        ::kill(child, signal);
    } else {
        early = signal;
    }
}

[[noreturn]] void be_the_child(const std::function<int()>& work, pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const bool is_orphan = ::getppid() != parent;  // it died before that call
    std::exit(is_orphan ? 1 : work());
}

int wait_for(pid_t process) {
    int status = 0;
    while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {}
    return status;
}

}  // namespace

int run_guarded(const std::function<int()>& work, const std::function<void(std::int64_t)>& clean) {
    std::fflush(nullptr);
    const pid_t parent = ::getpid();
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        std::signal(signal, pass_on);
    }
    const pid_t process = ::fork();
    if (process < 0) {
        return work();  // no second process can be had: better unguarded than not at all
    }
    if (process == 0) {
        be_the_child(work, parent);
    }
    child = process;
    if (early != 0) {
        ::kill(process, early);
    }
    const int status = wait_for(process);
    if (WIFEXITED(status)) {
        return WEXITSTATUS(status);
    }
    const int signal = WTERMSIG(status);
    clean(process);
    std::fprintf(
        stderr,
        "edgevit-harness: error: the run died by signal %d (%s); nothing was written. "
        "Either the artifact is damaged in a way that its checks do not see, so compile it "
        "again, or the runtime has a fault, so try another version\n",
        signal, ::strsignal(signal));
    return 1;
}

#else

int run_guarded(const std::function<int()>& work, const std::function<void(std::int64_t)>&) {
    return work();
}

#endif

}  // namespace edgevit
