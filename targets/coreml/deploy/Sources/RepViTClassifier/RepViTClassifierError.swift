import Foundation

/// Why a classifier could not be made, or an image not be classified.
public enum RepViTClassifierError: Error, Equatable {
    /// The model or manifest.json is missing from the app, damaged, or they do not fit each other.
    case resource(String)
    /// The image is too small, too large or of an unsupported pixel format.
    case image(String)
    /// Core ML failed to compile, load or run the model.
    case model(String)
}

extension RepViTClassifierError: LocalizedError {
    public var errorDescription: String? {
        switch self {
        case .resource(let reason): return "The classifier's resources are unusable: \(reason)"
        case .image(let reason): return "The image cannot be classified: \(reason)"
        case .model(let reason): return "Core ML failed: \(reason)"
        }
    }
}
