// Any bytes as manifest.json: refused with InputError, or good enough to preprocess an image by.
#include <algorithm>
#include <array>
#include <string>

#include "core/errors.h"
#include "core/limits.h"
#include "core/manifest.h"
#include "core/preprocess.h"
#include "fuzz.h"

using namespace edgevit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const Bytes pixels(40 * 30 * 3, 0x5a);
    try {
        const Manifest manifest =
            parse_manifest(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
        FUZZ_REQUIRE(manifest.labels.size() == static_cast<std::size_t>(manifest.classes));
        FUZZ_REQUIRE(!manifest.outputs.empty());
        FUZZ_REQUIRE(!manifest.is_classification() ||
                     manifest.labels.size() == manifest.logits().elements());
        for (const TensorSpec& output : manifest.outputs) {
            FUZZ_REQUIRE(output.elements() >= 1 && output.elements() <= kMaxTensorElements);
        }
        // Larger ones differ in time and memory only.
        const Preprocessing& rules = manifest.preprocessing;
        if (std::max({rules.size.width, rules.size.height, rules.target.width,
                      rules.target.height}) <= 512) {
            Bytes out(manifest.input.size_bytes());
            Preprocessor(manifest).run({pixels.data(), 40, 30, 120}, out.data());
        }
    } catch (const InputError&) {}
    return 0;
}
