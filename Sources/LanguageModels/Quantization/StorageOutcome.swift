import Support
import Torch
import TorchNN

/// What keeping a projection in fewer bits did to it.
public struct StorageOutcome: Sendable {
    public let path: String
    /// ‖W − Q‖ / ‖W‖
    public let error: Double
    /// Of the tensors that stand for the weight.
    public let bytes: Int
    /// As the folder's files have it.
    public let bytesBefore: Int
}

extension ModelFolder {
    /// How far a model's quantised projections are from this folder's numbers, one matrix at a time.
    /// - Throws: ``PEFTError`` where the folder lacks one.
    public func outcomes(of model: any LanguageModel) throws -> [StorageOutcome] {
        let tensors = try tensors()
        // A square matrix doesn't show which way it lies.
        let transposed = Set(
            try outline().namedModules().filter { ($0.module as? Linear)?.weight is TransposedWeight }.map(\.path))
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
