// An artifact that is no folder: a manifest's text and the bytes of the one file.
#pragma once

#include "core/bytes.h"
#include "core/manifest.h"

namespace edgevit {

// The manifest, whose artifact is `artifact`. Raises InputError for a manifest that
// parse_manifest() refuses and for bytes of another sha256 than it says.
Manifest manifest_of_bytes(ByteView manifest, ByteView artifact);

}  // namespace edgevit
