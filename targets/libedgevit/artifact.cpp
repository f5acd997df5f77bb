#include "artifact.h"

#include <string>
#include <string_view>

#include "core/errors.h"
#include "core/limits.h"
#include "core/sha256.h"

namespace edgevit {
namespace {

std::string_view text_of(ByteView bytes) {
    return {reinterpret_cast<const char*>(bytes.data), bytes.size};
}

}  // namespace

Manifest manifest_of_bytes(ByteView manifest, ByteView artifact) {
    if (manifest.size > kMaxManifestBytes) {
        throw InputError("the manifest has " + std::to_string(manifest.size) +
                         " bytes, over the limit of " + std::to_string(kMaxManifestBytes));
    }
    Manifest parsed = parse_manifest(std::string(text_of(manifest)), "manifest.json");
    const std::string actual = sha256_hex(text_of(artifact));
    if (actual != parsed.artifact_sha256) {
        throw InputError(parsed.artifact_file + ": its sha256 is " + actual +
                         ", the manifest says " + parsed.artifact_sha256 +
                         ": the artifact is corrupt or not the one that was compiled");
    }
    return parsed;
}

}  // namespace edgevit
