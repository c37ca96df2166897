import LanguageModels
import Support
import Torch
import TorchNN

/// How far a merged model's scores are from those of the model with the adapter beside its weights, where both store
/// the weights in one type and compute in single precision.
public struct MergeDrift: Codable, Sendable, Equatable {
    /// The type that the weights are stored in; or how the zeros of weights quantised in groups are, which a merged
    /// QA-LoRA leaves between the steps of the grid: `zeros float16` or `zeros rounded`.
    public var dtype: String
    /// Largest and mean absolute difference of a score; infinite where rounding to the type overflows.
    public var largest: Double
    public var mean: Double
    /// Share of positions whose likeliest token, or class, stays the same.
    public var agreement: Double
    /// Mean absolute difference that storing the model in this type makes by itself, without merging.
    public var storing: Double

    /// Merges an adapter, which stays merged, and measures what that changed for each type of stored weights.
    ///
    /// - Parameters:
    ///   - batches: sample rows.
    ///   - types: types that the merged weights would be rounded to.
    ///   - storages: ways to keep the merged projections in fewer bits.
    /// - Throws: ``PEFTError`` if the adapter can't be merged, or if scores are NaN or infinite.
    public static func merging(
        _ adapter: Adapter, on batches: [TrainingBatch], types: [DType], storages: [WeightStorage] = []
    ) throws -> [MergeDrift] {
        let model = adapter.model
        func scores() throws -> [Tensor] {
            try withTorchErrors {
                withoutGradients { batches.map { batch in model.computing { model.logits(batch) }.to(.float32) } }
            }
        }
        /// The scores with the model's weights rounded to a type.
        func scores(_ type: DType) throws -> [Tensor] {
            let kept = model.storedAsTheyAre
            let parameters = model.parameters().map(\.parameter).filter { !kept.contains(ObjectIdentifier($0)) }
            let own = parameters.map(\.tensor)
            defer { for (parameter, tensor) in zip(parameters, own) { parameter.tensor = tensor } }
            try withTorchErrors {
                for parameter in parameters where parameter.tensor.dtype.isFloatingPoint {
                    parameter.tensor = parameter.tensor.detached().to(type).to(parameter.tensor.dtype)
                }
            }
            return try scores()
        }
        /// The scores with the model's projections kept in fewer bits.
        func scores(_ storage: WeightStorage) throws -> [Tensor] {
            let linears = storage.projections(of: model).map(\.linear)
            let own = linears.map(\.weight)
            defer { for (linear, weight) in zip(linears, own) { linear.weight = weight } }
            try withTorchErrors { storage.apply(to: model) }
            return try scores()
        }
        let exact = try scores()
        for scores in exact { try model.requireFinite(scores: scores) }
        let roundedBefore = try storages.map { try scores($0) }
        let before = try types.map { try scores($0) }
        try adapter.merge()
        for scores in try scores() { try model.requireFinite(scores: scores, what: "merged scores") }
        var drifts = try zip(types, before).map { type, before in
            let drift = try difference(before, scores(type))
            return MergeDrift(
                dtype: type.rawValue, largest: drift.largest, mean: drift.mean, agreement: drift.agreement,
                storing: try difference(exact, before).mean)
        }
        for (storage, before) in zip(storages, roundedBefore) {
            let drift = try difference(before, scores(storage))
            drifts.append(
                MergeDrift(
                    dtype: storage.name, largest: drift.largest, mean: drift.mean, agreement: drift.agreement,
                    storing: try difference(exact, before).mean))
        }
        guard model.hasRealZeros else { return drifts }
        let linears = model.namedModules().compactMap { $0.module as? Linear }
        let merged = linears.map(\.weight)
        defer { for (linear, weight) in zip(linears, merged) { linear.weight = weight } }
        for (name, type) in [("zeros float16", DType.float16), ("zeros rounded", nil)] {
            for (linear, weight) in zip(linears, merged) { linear.weight = weight }
            model.storeZeros(as: type)
            let drift = try difference(exact, scores())
            drifts.append(
                MergeDrift(
                    dtype: name, largest: drift.largest, mean: drift.mean, agreement: drift.agreement, storing: 0))
        }
        return drifts
    }

    private static func difference(_ before: [Tensor], _ after: [Tensor]) throws -> (
        largest: Double, mean: Double, agreement: Double
    ) {
        try withTorchErrors {
            var (largest, sum, count, same, positions) = (0.0, 0.0, 0, 0.0, 0)
            for (a, b) in zip(before, after) {
                let difference = (a - b).abs()
                let worst = difference.max().item()
                // A comparison with NaN is false, so that the maximum alone would hide it.
                largest = worst.isFinite ? max(largest, worst) : .infinity
                sum += difference.sum().item()
                count += difference.count
                same += a.argmax(axis: -1).equal(to: b.argmax(axis: -1)).to(.float32).sum().item()
                positions += a.count / max(1, a.dim(-1))
            }
            return (largest, sum / Double(max(1, count)), same / Double(max(1, positions)))
        }
    }
}
