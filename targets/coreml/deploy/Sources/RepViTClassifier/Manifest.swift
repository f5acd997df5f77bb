import Foundation

/// What the app needs of manifest.json, as `edgevit compile` wrote it beside the model.
///
/// Other keys are left alone: what they would change, schema_version must announce.
struct Manifest: Decodable {
    struct Artifact: Decodable {
        let file: String
        let sha256: String
    }

    struct Preprocessing: Decodable {
        enum Interpolation: String, Decodable {
            case bicubic, bilinear
        }

        /// The sides of the network's input, in pixels.
        let imageSize: Int
        /// What the image's shorter side is resized to, in pixels; nil: no resize.
        let resizeSize: Int?
        let interpolation: Interpolation
    }

    let schemaVersion: Int
    let artifact: Artifact
    let preprocessing: Preprocessing
    /// In the order of the model's logits.
    let labels: [String]

    /// Reads FOLDER/manifest.json; throws `RepViTClassifierError.resource`.
    static func read(from folder: URL) throws -> Manifest {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let manifest: Manifest
        do {
            let data = try Data(contentsOf: folder.appendingPathComponent("manifest.json"))
            guard data.count <= Limits.maxManifestBytes else {
                throw RepViTClassifierError.resource("\(data.count) bytes are too many")
            }
            manifest = try decoder.decode(Manifest.self, from: data)
        } catch {
            throw RepViTClassifierError.resource("manifest.json: \(error)")
        }
        try manifest.check()
        return manifest
    }

    private func check() throws {
        guard (1...Limits.manifestSchemaVersion).contains(schemaVersion) else {
            throw RepViTClassifierError.resource(
                "manifest.json: schema_version is \(schemaVersion), this package reads up to "
                    + "\(Limits.manifestSchemaVersion): run `edgevit package` again")
        }
        guard (1...Limits.maxImageSize).contains(preprocessing.imageSize) else {
            throw RepViTClassifierError.resource(
                "manifest.json: image_size is not 1 to \(Limits.maxImageSize)")
        }
        let sizes = preprocessing.imageSize...Limits.maxResizeSize
        guard preprocessing.resizeSize.map(sizes.contains) ?? true else {
            throw RepViTClassifierError.resource(
                "manifest.json: resize_size is not image_size to \(Limits.maxResizeSize)")
        }
    }
}
