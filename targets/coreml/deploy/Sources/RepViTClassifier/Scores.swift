import CoreML
import Foundation

/// The model's answer as one number a class, in the order of the labels.
struct Scores {
    let values: [Double]
    let probabilities: [Double]

    /// Of a classifier model: its dictionary from label to probability.
    init(byLabel answer: [AnyHashable: NSNumber], labels: [String]) throws {
        values = try labels.map { label in
            guard let probability = answer[label] else {
                throw RepViTClassifierError.resource("the model does not know the label \(label)")
            }
            return probability.doubleValue
        }
        probabilities = values
        try checkFinite()
    }

    /// Of a plain model: logits [1, classes], of any element type and stride.
    init(logits: MLMultiArray, labels: [String]) throws {
        guard logits.shape.map(\.intValue) == [1, labels.count] else {
            throw RepViTClassifierError.resource(
                "the model answers \(logits.shape), there are \(labels.count) labels")
        }
        let read = labels.indices.map { logits[[0, NSNumber(value: $0)]].doubleValue }
        values = read
        probabilities = Self.softmax(read)
        try checkFinite()
    }

    /// The best classes, best first; of equal scores the lower class first, as edgevit counts.
    func best(_ count: Int) -> [Int] {
        let order = values.indices.sorted { (values[$0], $1) > (values[$1], $0) }
        return Array(order.prefix(max(count, 0)))
    }

    private func checkFinite() throws {
        guard values.allSatisfy(\.isFinite) else {
            throw RepViTClassifierError.model("the model answered a value that is not finite")
        }
    }

    private static func softmax(_ logits: [Double]) -> [Double] {
        let largest = logits.max() ?? 0
        let weights = logits.map { exp($0 - largest) }
        let total = weights.reduce(0, +)
        return weights.map { $0 / total }
    }
}
