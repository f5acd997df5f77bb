import Foundation

/// What the app needs of manifest.json, as `edgevit compile` wrote it beside the model.
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
            manifest = try decoder.decode(Manifest.self, from: data)
        } catch {
            throw RepViTClassifierError.resource("manifest.json: \(error)")
        }
        guard (1...4096).contains(manifest.preprocessing.imageSize) else {
            throw RepViTClassifierError.resource("manifest.json: image_size is not 1 to 4096")
        }
        return manifest
    }
}
