// Any bytes as a request: refused with InputError, or within every range.
#include <string>

#include "core/errors.h"
#include "fuzz.h"
#include "request.h"

using namespace edgevit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const Request request =
            parse_request(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
        FUZZ_REQUIRE(!request.artifact.empty() && !request.data.empty() && !request.out.empty());
        FUZZ_REQUIRE(request.threads >= 1 && request.threads <= 256);
        FUZZ_REQUIRE(request.warmup >= 0 && request.warmup <= 100'000);
        FUZZ_REQUIRE(request.limit.value_or(1) >= 1);
        if (const auto long_run = long_run_options(request)) {
            FUZZ_REQUIRE(long_run->min_duration_s > 0 && long_run->min_duration_s <= 3600);
            FUZZ_REQUIRE(long_run->bucket_s >= 0.01);
        }
        backend_options(request);
    } catch (const InputError&) {}
    return 0;
}
