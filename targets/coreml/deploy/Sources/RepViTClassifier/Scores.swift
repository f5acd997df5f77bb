import CoreML
import EdgevitImage
import Foundation

/// The model's answer as one number a class, in the order of the labels.
struct Scores {
    private let values: [Float]
    private let areLogits: Bool

    /// Of a classifier model: its dictionary from label to probability.
    init(byLabel answer: [AnyHashable: NSNumber], labels: [String]) throws {
        values = try labels.map { label in
            guard let probability = answer[label] else {
                throw RepViTClassifierError.resource("the model does not know the label \(label)")
            }
            return probability.floatValue
        }
        areLogits = false
    }

    /// Of a plain model: logits [1, classes], of any element type and stride.
    init(logits: MLMultiArray, labels: [String]) throws {
        guard logits.shape.map(\.intValue) == [1, labels.count] else {
            throw RepViTClassifierError.resource(
                "the model answers \(logits.shape), there are \(labels.count) labels")
        }
        values = labels.indices.map { logits[[0, NSNumber(value: $0)]].floatValue }
        areLogits = true
    }

    /// The best classes, best first; of equal scores the lower class first. Ranked by edgevit's
    /// own code, as the accuracy was measured. Throws when a value is not finite.
    func best(_ count: Int) throws -> [(index: Int, probability: Double)] {
        let room = min(max(count, 0), values.count)
        guard room > 0 else {
            return []
        }
        var indices = [Int32](repeating: 0, count: room)
        var probabilities = [Double](repeating: 0, count: room)
        let messageSizeBytes = 256
        var message = [CChar](repeating: 0, count: messageSizeBytes)
        let status = edgevit_best(
            values, values.count, areLogits ? 1 : 0, room, &indices, &probabilities, &message,
            messageSizeBytes)
        guard status == EDGEVIT_IMAGE_OK else {
            let reason = message.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            throw RepViTClassifierError.model(reason)
        }
        return zip(indices, probabilities).map { (index: Int($0), probability: $1) }
    }
}
