import CoreML
import Foundation

/// Compiles the .mlpackage once a device and model: what Core ML makes of it stays in the app's
/// caches folder, under the artifact's sha256.
enum CompiledModel {
    static func load(
        package: URL, sha256: String, configuration: MLModelConfiguration
    ) throws -> MLModel {
        do {
            let compiled = try cacheFolder().appendingPathComponent("\(sha256).mlmodelc")
            if FileManager.default.fileExists(atPath: compiled.path) {
                if let model = try? MLModel(contentsOf: compiled, configuration: configuration) {
                    return model
                }
                // Damaged, or compiled by a Core ML that a system update has replaced.
                try? FileManager.default.removeItem(at: compiled)
            }
            try compile(package, to: compiled)
            removeOthers(than: compiled)
            return try MLModel(contentsOf: compiled, configuration: configuration)
        } catch {
            throw RepViTClassifierError.model("\(package.lastPathComponent): \(error)")
        }
    }

    private static func cacheFolder() throws -> URL {
        let caches = try FileManager.default.url(
            for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        let folder = caches.appendingPathComponent("RepViTClassifier", isDirectory: true)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        return folder
    }

    /// What earlier versions of the app's model left. Only what this file names so is removed:
    /// 64 hexadecimal digits and .mlmodelc, in a folder that is its own.
    private static func removeOthers(than compiled: URL) {
        let files = FileManager.default
        let folder = compiled.deletingLastPathComponent()
        let found = try? files.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        for other in found ?? [] where other.lastPathComponent != compiled.lastPathComponent {
            let name = other.deletingPathExtension().lastPathComponent
            let isOurs =
                other.pathExtension == "mlmodelc" && name.count == 64
                && name.allSatisfy { "0123456789abcdef".contains($0) }
            if isOurs {
                try? files.removeItem(at: other)
            }
        }
    }

    private static func compile(_ package: URL, to compiled: URL) throws {
        let files = FileManager.default
        let fresh = try MLModel.compileModel(at: package)
        // Moved twice: the first move copies when the temporary folder is on another volume, the
        // second is a rename, so `compiled` is never half there.
        let staged = compiled.deletingLastPathComponent()
            .appendingPathComponent("\(UUID().uuidString).staged")
        defer { try? files.removeItem(at: staged) }
        try files.moveItem(at: fresh, to: staged)
        do {
            try files.moveItem(at: staged, to: compiled)
        } catch {
            // Another thread or process was first, with the same model.
            guard files.fileExists(atPath: compiled.path) else { throw error }
        }
    }
}
