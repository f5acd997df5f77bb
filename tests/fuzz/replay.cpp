// Runs a fuzz target once for every file of a folder: replay FOLDER. Fails when there is none.
#include <filesystem>

#include "core/bytes.h"
#include "fuzz.h"

int main(int argc, char** argv) {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(argc > 1 ? argv[1] : ".")) {
        if (!entry.is_regular_file()) {
            continue;
        }
        const edgevit::Bytes bytes = edgevit::read_file(entry.path(), 1 << 26);
        std::printf("%s\n", entry.path().filename().c_str());
        std::fflush(stdout);  // the last name printed is the one that failed
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
        ++count;
    }
    return count > 0 ? 0 : 1;
}
