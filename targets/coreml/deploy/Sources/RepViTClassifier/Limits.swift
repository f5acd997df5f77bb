// Generated from edgevit/limits.py by tools/generate.py: change them there.

enum Limits {
    /// Newest schema_version of manifest.json; older ones are read too.
    static let manifestSchemaVersion = 3
    /// Size of a manifest.json.
    static let maxManifestBytes = 16_777_216
    /// Height and width of the network's input, pixels.
    static let maxImageSize = 4096
    /// Length to which an image's shorter side is resized, pixels.
    static let maxResizeSize = 16_384
    /// Pixels of an image, before the resize.
    static let maxImagePixels = 64_000_000
}
