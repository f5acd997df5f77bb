import CoreGraphics
import CoreML
import CoreVideo
import Foundation

/// Says what an image shows, by the model that this package was made with.
///
/// Any thread may call `classify`, several at once too: everything is immutable once made, and
/// predictions take turns, because Core ML promises thread safety only of its asynchronous ones.
public final class RepViTClassifier: @unchecked Sendable {
    /// The classes, in the order of the model's logits.
    public var labels: [String] { manifest.labels }

    private enum Output {
        case probabilities(String)
        case logits(String)
    }

    private let manifest: Manifest
    private let preparation: PixelPreparation
    private let model: MLModel
    private let inputName: String
    private let output: Output
    private let prediction = NSLock()

    /// Loads the model; the first time on a device it is compiled, which takes seconds: call it
    /// off the main thread. Throws `RepViTClassifierError`.
    public init(computeUnits: MLComputeUnits = .all) throws {
        guard let folder = Bundle.module.url(forResource: "Model", withExtension: nil) else {
            throw RepViTClassifierError.resource(
                "no Model folder: the package is made by `edgevit package`")
        }
        manifest = try Manifest.read(from: folder)
        preparation = PixelPreparation(preprocessing: manifest.preprocessing)
        let configuration = MLModelConfiguration()
        configuration.computeUnits = computeUnits
        model = try CompiledModel.load(
            package: folder.appendingPathComponent(manifest.artifact.file),
            sha256: manifest.artifact.sha256, configuration: configuration)
        inputName = try RepViTClassifier.imageInput(
            of: model.modelDescription, size: manifest.preprocessing.imageSize)
        output = try RepViTClassifier.output(of: model.modelDescription)
    }

    /// The `topK` most probable classes of an image, the most probable first.
    ///
    /// The pixels are taken as stored: turn a photo with an orientation upright first. Throws
    /// `RepViTClassifierError`.
    public func classify(
        _ image: CGImage, topK: Int = 5
    ) throws -> [(label: String, probability: Double)] {
        try classify(input: preparation.input(from: image), topK: topK)
    }

    /// The same of a camera frame, which must be kCVPixelFormatType_32BGRA or one of the two
    /// kCVPixelFormatType_420YpCbCr8BiPlanar formats.
    public func classify(
        _ frame: CVPixelBuffer, orientation: FrameOrientation = FrameOrientation(), topK: Int = 5
    ) throws -> [(label: String, probability: Double)] {
        try classify(input: preparation.input(from: frame, orientation), topK: topK)
    }

    #if compiler(>=6)
        /// The same without blocking the caller. The frame is handed over: it must not be used by
        /// anybody else until this returns.
        public func classified(
            _ frame: sending CVPixelBuffer, orientation: FrameOrientation = FrameOrientation(),
            topK: Int = 5
        ) async throws -> [(label: String, probability: Double)] {
            let handed = HandedOver(frame)
            return try await withCheckedThrowingContinuation { continuation in
                RepViTClassifier.queue.async {
                    continuation.resume(
                        with: Result {
                            try self.classify(handed.value, orientation: orientation, topK: topK)
                        })
                }
            }
        }

        private static let queue = DispatchQueue(label: "RepViTClassifier")
    #endif

    private func classify(
        input: CVPixelBuffer, topK: Int
    ) throws -> [(label: String, probability: Double)] {
        let best = try scores(of: predict(input)).best(topK)
        return best.map { (label: labels[$0.index], probability: $0.probability) }
    }

    private func predict(_ input: CVPixelBuffer) throws -> MLFeatureProvider {
        prediction.lock()
        defer { prediction.unlock() }
        do {
            let features = try MLDictionaryFeatureProvider(
                dictionary: [inputName: MLFeatureValue(pixelBuffer: input)])
            return try model.prediction(from: features)
        } catch {
            throw RepViTClassifierError.model("\(error)")
        }
    }

    private func scores(of answer: MLFeatureProvider) throws -> Scores {
        switch output {
        case .probabilities(let name):
            let byLabel = answer.featureValue(for: name)?.dictionaryValue ?? [:]
            return try Scores(byLabel: byLabel, labels: labels)
        case .logits(let name):
            guard let logits = answer.featureValue(for: name)?.multiArrayValue else {
                throw RepViTClassifierError.resource("the model did not answer \(name)")
            }
            return try Scores(logits: logits, labels: labels)
        }
    }

    private static func imageInput(
        of model: MLModelDescription, size: Manifest.Sides
    ) throws -> String {
        let inputs = model.inputDescriptionsByName
        guard inputs.count == 1, let (name, input) = inputs.first,
            let image = input.imageConstraint, image.pixelsWide == size.width,
            image.pixelsHigh == size.height
        else {
            throw RepViTClassifierError.resource(
                "the model's only input must be an image of \(size.width)x\(size.height) pixels")
        }
        return name
    }

    private static func output(of model: MLModelDescription) throws -> Output {
        if let name = model.predictedProbabilitiesName {
            return .probabilities(name)
        }
        let arrays = model.outputDescriptionsByName.filter { $0.value.type == .multiArray }
        guard arrays.count == 1, let name = arrays.keys.first else {
            throw RepViTClassifierError.resource("the model must answer one array of logits")
        }
        return .logits(name)
    }
}

/// A value that one thread gave another and does not use any more.
private struct HandedOver<Value>: @unchecked Sendable {
    let value: Value

    init(_ value: Value) {
        self.value = value
    }
}
