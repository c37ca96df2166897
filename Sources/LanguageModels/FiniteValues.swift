import PEFTSupport
import Torch
import TorchNN

/// A tensor that contains NaN or infinite values.
package struct NonFiniteTensor: Sendable, Equatable {
    package let path: String
    /// Number of its NaN or infinite values.
    package let count: Int

    package init(path: String, count: Int) { (self.path, self.count) = (path, count) }

    package var description: String {
        "the tensor '\(path)' contains \(count == 1 ? "a NaN or infinite value" : "\(count) NaN or infinite values")"
    }
}

extension NonFiniteTensor {
    var damagedBase: PEFTError {
        PEFTError("\(description): the base model is damaged", remedy: "download it again, or use another one")
    }
}

extension ModelFolder {
    /// Checks that no stored tensor contains NaN or infinite values, before quantization hides them.
    /// - Throws: ``PEFTError`` that names the first tensor that does.
    package func requireFiniteTensors() throws {
        if let tensor = try tensors().nonFiniteTensor() { throw tensor.damagedBase }
    }
}

extension Tensor {
    /// Number of NaN or infinite values.
    package var nonFiniteCount: Int {
        guard dtype.isFloatingPoint, count > 0 else { return 0 }
        let flat = detached().reshaped(-1)
        // In chunks, so that a large tensor isn't copied as a whole.
        return stride(from: 0, to: count, by: 1 << 22).reduce(0) { sum, start in
            let part = flat.narrowed(axis: 0, start..<min(start + 1 << 22, count))
            // The absolute maximum is NaN if any value is, so values are counted only where it isn't finite.
            if part.abs().max().item().isFinite { return sum }
            return sum + part.count - Int(part.isFinite().to(.float64).sum().item())
        }
    }
}

extension LanguageModel {
    /// The first of the model's tensors that contains NaN or infinite values.
    /// - Parameter paths: tensors to skip.
    package func nonFiniteTensor(except paths: Set<String> = []) throws -> NonFiniteTensor? {
        try withTorchErrors {
            try withoutGradients {
                for (path, parameter) in parameters() where !paths.contains(path) {
                    try partitionedBase?.gather(partOf: parameter.tensor)
                    let count = parameter.tensor.nonFiniteCount
                    try checkTorchErrors()
                    if count > 0 { return NonFiniteTensor(path: path, count: count) }
                }
                return nil
            }
        }
    }

    /// Checks that no tensor contains NaN or infinite values.
    /// - Throws: ``PEFTError`` that names the first tensor that does.
    package func requireFiniteWeights() throws {
        if let tensor = try nonFiniteTensor() { throw tensor.damagedBase }
    }

    /// Checks that logits are finite.
    /// - Throws: ``PEFTError`` that names the model's tensor which isn't finite, if there is one.
    package func requireFinite(logits: Tensor, what: String = "logits") throws {
        let largest = logits.count > 0 ? logits.max().item() : 0
        try checkTorchErrors()
        guard !largest.isFinite else { return }
        throw nonFinite(what)
    }

    /// The error for NaN or infinite logits or losses, with the model's tensor that causes it, if there is one.
    package func nonFinite(_ what: String) -> PEFTError {
        let problem = "the model's \(what) are NaN or infinite"
        if let tensor = (try? nonFiniteTensor()) ?? nil {
            return PEFTError(
                "\(problem): \(tensor.description)\(precision.map { " in \($0.type.rawValue)" } ?? "")",
                remedy: precision == nil
                    ? "download the model or the adapter again"
                    : "use --precision float32, or download the model again")
        }
        return PEFTError(
            problem,
            remedy: precision == nil
                ? "its weights are finite, so activations overflow; check the adapter and the model"
                : "activations overflow in \(precision?.type.rawValue ?? ""); use --precision bfloat16 or float32")
    }
}
