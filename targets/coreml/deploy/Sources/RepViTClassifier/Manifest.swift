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
            case bicubic, bilinear, nearest, box, area
        }

        enum Resize: String, Decodable {
            case shorter, exact, fit
        }

        enum Channels: String, Decodable {
            case rgb = "RGB"
            case bgr = "BGR"
            case grey = "L"
            case rgba = "RGBA"
        }

        enum PadPosition: String, Decodable {
            case centre
            case topLeft = "top-left"
        }

        /// The sides of the network's input.
        let imageSize: Sides
        /// What the image is resized to before the crop; nil: nothing, or of exact and fit the
        /// input's size.
        let resizeSize: Sides?
        let interpolation: Interpolation
        /// Those that are nil have their default, as every key that is new in version 3.
        let resize: Resize?
        let antialias: Bool?
        let channels: Channels?
        let padColor: [Int]?
        let padPosition: PadPosition?
    }

    /// Sides in pixels: one number for a square, or height and width.
    struct Sides: Decodable {
        let height: Int
        let width: Int

        init(from decoder: Decoder) throws {
            let value = try decoder.singleValueContainer()
            if let side = try? value.decode(Int.self) {
                (height, width) = (side, side)
                return
            }
            let both = try value.decode([Int].self)
            guard both.count == 2 else {
                throw DecodingError.typeMismatch(
                    Sides.self,
                    .init(codingPath: decoder.codingPath, debugDescription: "not two sides"))
            }
            (height, width) = (both[0], both[1])
        }

        func isWithin(_ range: ClosedRange<Int>) -> Bool {
            range.contains(height) && range.contains(width)
        }
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
        let size = preprocessing.imageSize
        guard size.isWithin(1...Limits.maxImageSize) else {
            throw RepViTClassifierError.resource(
                "manifest.json: image_size is not 1 to \(Limits.maxImageSize)")
        }
        let least = preprocessing.resize == .fit ? 1 : min(size.height, size.width)
        guard preprocessing.resizeSize?.isWithin(least...Limits.maxResizeSize) ?? true else {
            throw RepViTClassifierError.resource(
                "manifest.json: resize_size is not image_size to \(Limits.maxResizeSize)")
        }
        let color = preprocessing.padColor ?? []
        guard color.count <= 4, color.allSatisfy((0...255).contains) else {
            throw RepViTClassifierError.resource("manifest.json: pad_color is not 0 to 255")
        }
    }
}
