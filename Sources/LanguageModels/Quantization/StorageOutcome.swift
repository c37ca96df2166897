import PEFTSupport
import Torch
import TorchNN

/// Quantization error and size of one projection.
package struct StorageOutcome: Sendable {
    package let path: String
    /// ‖W − Q‖ / ‖W‖ (Frobenius).
    package let error: Double
    /// Bytes of the quantized weight's tensors.
    package let bytes: Int
    /// Bytes in the folder's files.
    package let bytesBefore: Int
}

extension ModelFolder {
    /// The errors of a model's quantized projections relative to this folder's weights, one matrix at a time.
    /// - Throws: ``PEFTError`` if the folder lacks a projection.
    package func outcomes(of model: any LanguageModel) throws -> [StorageOutcome] {
        let tensors = try tensors()
        // The shape of a square matrix doesn't show whether it is transposed.
        let transposed = Set(
            try outline().namedModules().filter { ($0.module as? Linear)?.weight.isTransposed == true }.map(\.path))
        return try model.namedModules().compactMap { path, module in
            guard let weight = (module as? Linear)?.weight, weight.isQuantized else { return nil }
            return try withTorchErrors {
                var own = try tensors.tensor("\(path).weight", of: model).to(.float32)
                if transposed.contains(path) { own = own.T }
                let (lost, all) = ((own - weight.dense(as: .float32)).squared().sum(), own.squared().sum())
                defer { tensors.forget("\(path).weight", of: model) }
                return StorageOutcome(
                    path: path, error: (lost.item() / max(all.item(), 1e-300)).squareRoot(),
                    bytes: weight.parameters.reduce(0) { $0 + $1.parameter.tensor.byteCount },
                    bytesBefore: tensors.byteCount("\(path).weight", of: model))
            }
        }
    }
}
