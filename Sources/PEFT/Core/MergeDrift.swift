import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// How far a merged model's logits are from those of the unmerged model with its adapter. Both store weights in the
/// same dtype and compute in fp32.
package struct MergeDrift: Codable, Sendable, Equatable {
    /// Storage dtype of the weights; for a merged QA-LoRA, whose zero points are no longer integers, their format:
    /// `zeros float16` or `zeros rounded`.
    package var dtype: String
    /// Largest absolute difference of a logit; infinite if rounding to the dtype overflows.
    package var largest: Double
    /// Mean absolute difference of a logit.
    package var mean: Double
    /// Fraction of positions whose argmax token, or class, is the same.
    package var agreement: Double
    /// Mean absolute difference that storing the unmerged model in this dtype causes.
    package var storing: Double

    /// Merges an adapter, which stays merged, and measures the drift for each storage dtype.
    ///
    /// - Parameters:
    ///   - batches: sample batches.
    ///   - types: dtypes to round the merged weights to.
    ///   - storages: quantization formats to convert the merged projections to.
    /// - Throws: ``PEFTError`` if the adapter can't be merged, or if logits are NaN or infinite.
    package static func merging(
        _ adapter: Adapter, on batches: [TrainingBatch], types: [DType], storages: [WeightStorage] = []
    ) throws -> [MergeDrift] {
        let model = adapter.model
        func scores() throws -> [Tensor] {
            try withTorchErrors {
                withoutGradients { batches.map { batch in model.computing { model.logits(batch) }.to(.float32) } }
            }
        }
        /// Logits with the model's weights rounded to a dtype.
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
        /// Logits with the model's projections quantized.
        func scores(_ storage: WeightStorage) throws -> [Tensor] {
            let linears = storage.projections(of: model).map(\.linear)
            let own = linears.map(\.weight)
            let experts = storage.experts(of: model).map { ($0.site, $0.site.weight) }
            defer {
                for (linear, weight) in zip(linears, own) { linear.weight = weight }
                for (site, weight) in experts { site.weight = weight }
            }
            try withTorchErrors { storage.apply(to: model) }
            return try scores()
        }
        let exact = try scores()
        for scores in exact { try model.requireFinite(logits: scores) }
        let roundedBefore = try storages.map { try scores($0) }
        let before = try types.map { try scores($0) }
        try adapter.merge()
        for scores in try scores() { try model.requireFinite(logits: scores, what: "merged logits") }
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
        guard model.hasFloatZeroPoints else { return drifts }
        let linears = model.namedModules().compactMap { $0.module as? Linear }
        let merged = linears.map(\.weight)
        defer { for (linear, weight) in zip(linears, merged) { linear.weight = weight } }
        for (name, type) in [("zeros float16", DType.float16), ("zeros rounded", nil)] {
            for (linear, weight) in zip(linears, merged) { linear.weight = weight }
            model.storeZeroPoints(as: type)
            let drift = try difference(exact, scores())
            drifts.append(
                MergeDrift(
                    dtype: name, largest: drift.largest, mean: drift.mean, agreement: drift.agreement, storing: 0))
        }
        return drifts
    }

    /// Logits of a model with its active adapters, in fp32.
    package static func logits(of model: any LanguageModel, on batches: [TrainingBatch]) throws -> [Tensor] {
        try withTorchErrors {
            withoutGradients { batches.map { batch in model.computing { model.logits(batch) }.to(.float32) } }
        }
    }

    /// How far the logits of a stored model are from those of the original.
    package static func between(_ before: [Tensor], _ after: [Tensor], name: String) throws -> MergeDrift {
        let drift = try difference(before, after)
        return MergeDrift(
            dtype: name, largest: drift.largest, mean: drift.mean, agreement: drift.agreement, storing: drift.mean)
    }

    private static func difference(_ before: [Tensor], _ after: [Tensor]) throws -> (
        largest: Double, mean: Double, agreement: Double
    ) {
        try withTorchErrors {
            var (largest, sum, count, same, positions) = (0.0, 0.0, 0, 0.0, 0)
            for (a, b) in zip(before, after) {
                let difference = (a - b).abs()
                let worst = difference.max().item()
                // Comparisons with NaN are false, so the maximum alone would hide it.
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
