import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN
import Training

/// Results of quantizing one method's trained models, collected over the seeds: one entry of the report per weight format.
struct PostQuantization: Codable {
    private struct Row: Codable {
        let storage: String
        var qualities: [[String: DrawnMetric]] = []
        var losses: [DrawnMetric] = []
        var bytes: Int?
        var samples: [MethodRun.Sample] = []
        var retention: [Double] = []
        var refusal: String?
    }

    private var rows: [Row] = []

    private mutating func change(_ storage: String, _ body: (inout Row) -> Void) {
        let index = rows.firstIndex { $0.storage == storage } ?? rows.count
        if index == rows.count { rows.append(Row(storage: storage)) }
        body(&rows[index])
    }

    mutating func refuse(_ storage: String, _ reason: String) { change(storage) { $0.refusal = reason } }

    mutating func add(
        _ storage: String, metrics: [String: MetricValue], loss: MetricValue, bytes: Int,
        samples: [MethodRun.Sample], retention: Double?
    ) {
        change(storage) { row in
            row.qualities.append(metrics.mapValues { DrawnMetric($0) })
            row.losses.append(DrawnMetric(loss))
            row.bytes = row.bytes ?? bytes
            if row.samples.isEmpty { row.samples = samples }
            if let retention { row.retention.append(retention) }
        }
    }

    private static func label(_ run: MethodRun, _ storage: String) -> String { "\(run.label) → \(storage)" }

    /// - Parameter place: of the trained run in the report.
    func runs(of trained: MethodRun, at place: Int) -> [MethodRun] {
        rows.filter { $0.refusal == nil }.map { row in
            var run = MethodRun(method: trained.method, label: Self.label(trained, row.storage))
            (run.source, run.storedAs, run.weights) = (place, row.storage, trained.weights)
            (run.total, run.modelBytes, run.samples) = (trained.total, row.bytes, row.samples)
            run.quality = Comparison.statistics(row.qualities.map { $0.mapValues(\.metric) })
            run.loss = Statistic(row.losses.map(\.metric))
            if let before = trained.retention, !row.retention.isEmpty {
                run.retention = .init(text: before.text, before: before.before, after: Statistic(row.retention))
            }
            return run
        }
    }

    func skipped(of trained: MethodRun) -> [SkippedMethod] {
        rows.compactMap { row in
            row.refusal.map { SkippedMethod(label: Self.label(trained, row.storage), reason: $0) }
        }
    }
}

extension Comparison {
    /// Merges a trained adapter, and quantizes and evaluates the model in each of the plan's weight formats. The adapter stays
    /// merged.
    ///
    /// If the base is group-quantized and the adapter only shifts its zero points (QA-LoRA), nothing is requantized, and the
    /// merged model is evaluated.
    func measureStored(
        _ adapter: Adapter, label: String, seed: Int, _ found: inout PostQuantization,
        _ onEvent: (ComparisonEvent) -> Void
    ) throws {
        guard !plan.quantizeAfter.isEmpty else { return }
        let model = adapter.model
        guard adapter.choice.isMergeable else {
            for rounding in plan.quantizeAfter {
                found.refuse(rounding.name, "\(adapter.choice.label) can't be merged into weights")
            }
            return
        }
        do {
            if try adapter.mergesAsStored() {
                try adapter.merge()
                // As `peft merge` stores them.
                model.storeZeroPoints(as: .float16)
                return try measure(model, as: MethodRun.merged, label, seed, &found, onEvent)
            }
            try withTorchErrors { try model.upcastWeights(groups: true) }
            try adapter.merge()
        } catch let error as PEFTError {
            for rounding in plan.quantizeAfter { found.refuse(rounding.name, error.description) }
            return
        }
        try measureRounded(model, label, seed, &found, onEvent)
    }

    /// The same for the untrained model.
    func measureStored(
        _ model: any LanguageModel, label: String, seed: Int, _ found: inout PostQuantization,
        _ onEvent: (ComparisonEvent) -> Void
    ) throws {
        guard !plan.quantizeAfter.isEmpty, !folder.isQuantized, folder.storage == nil else { return }
        try measureRounded(model, label, seed, &found, onEvent)
    }

    private func measureRounded(
        _ model: any LanguageModel, _ label: String, _ seed: Int, _ found: inout PostQuantization,
        _ onEvent: (ComparisonEvent) -> Void
    ) throws {
        let linears = model.namedModules().compactMap { $0.module as? Linear }
        let numbers = linears.map(\.weight)
        for rounding in plan.quantizeAfter {
            defer { for (linear, weight) in zip(linears, numbers) { linear.weight = weight } }
            do { try rounding.apply(to: model) { try readSamples(model) } } catch let error as PEFTError {
                found.refuse(rounding.name, error.description)
                continue
            }
            try measure(model, as: rounding.name, label, seed, &found, onEvent)
        }
    }

    private func measure(
        _ model: any LanguageModel, as storage: String, _ label: String, _ seed: Int,
        _ found: inout PostQuantization, _ onEvent: (ComparisonEvent) -> Void
    ) throws {
        let evaluation = try evaluate(model, label: "\(label) → \(storage)", seed: seed, onEvent)
        found.add(
            storage, metrics: evaluation.metrics, loss: loss(evaluation),
            bytes: model.storedBytes(as: try folder.storedType() ?? .float32), samples: samples(evaluation),
            retention: try retention?.loss(of: model))
    }

    /// Runs the first training examples through a model, for GPTQ calibration.
    func readSamples(_ model: any LanguageModel) throws {
        let samples = rows.training.prefix(plan.calibrationRows)
        let size = max(1, plan.training.batchSize)
        for start in stride(from: 0, to: samples.count, by: size) {
            let batch = model.batch(Array(samples[start..<min(start + size, samples.count)]))
            model.computing {
                _ = model.generates ? model.lossSum(batch, labelSmoothing: 0) : model.logits(batch)
            }
            try checkTorchErrors()
        }
    }

    // MARK: Bases

    /// Bytes of the files of a base model in its weight format.
    func bytes(of base: any LanguageModel, in folder: ModelFolder) throws -> Int {
        folder.storage == nil ? folder.weightBytes : base.storedBytes(as: try folder.storedType() ?? .float32)
    }

    /// The model on libtorch's meta device with unquantized projections.
    static func plainOutline(_ folder: ModelFolder) throws -> any LanguageModel {
        let model = try folder.outline()
        try model.upcastWeights(groups: true)
        return model
    }

    /// The shapes of a base model in another weight format.
    /// - Throws: ``PEFTError`` if the model is already quantized, or can't be stored in this format.
    static func outline(_ folder: ModelFolder, _ rounding: WeightRounding) throws -> any LanguageModel {
        guard !folder.isQuantized || folder.isGGUF else {
            throw PEFTError(
                "\(folder.url.path) is already quantized and cannot be requantized to weights=\(rounding.name)",
                remedy: "use the model that it was quantized from")
        }
        let model = try folder.with(weights: .float32).outline()
        try rounding.outline(model)
        return model
    }

    /// The base model in another weight format; group-quantized ones are saved to a folder once for all seeds and methods.
    func roundedFolder(_ rounding: WeightRounding) throws -> ModelFolder {
        if let storage = rounding.storage { return folder.with(weights: storage) }
        return try bases.folder(rounding) { target in
            let model = try folder.with(weights: .float32).load(dtype: .float32, device: plan.device)
            try rounding.apply(to: model) { try readSamples(model) }
            try model.save(to: target, dtype: try folder.storedType() ?? .float32)
        }.with(folder.head).computing(in: folder.precision)
    }
}

extension Adapter {
    /// Whether all weights that it merges into are group-quantized and can be merged without requantization.
    fileprivate func mergesAsStored() throws -> Bool {
        guard !attached.isEmpty else { return false }
        return try attached.allSatisfy { _, site, adapter in
            guard let linear = site as? Linear, linear.weight.grouped != nil,
                let adapter = adapter as? any WeightAdapter
            else { return false }
            return try withTorchErrors { try withoutGradients { try adapter.merged(into: linear.weight) != nil } }
        }
    }
}

extension ModelFolder {
    fileprivate func computing(in precision: DType) -> ModelFolder {
        var copy = self
        copy.precision = precision
        return copy
    }
}

/// Folders of quantized base models, which exist as long as the comparison.
final class RoundedBases {
    private var parent: TemporaryFolder?
    private var made: [String: ModelFolder] = [:]

    func folder(_ rounding: WeightRounding, make: (URL) throws -> Void) throws -> ModelFolder {
        if let known = made[rounding.name] { return known }
        let parent = try parent ?? TemporaryFolder()
        self.parent = parent
        let target = parent.url.appendingPathComponent(rounding.name)
        try make(target)
        let folder = try ModelFolder(target)
        made[rounding.name] = folder
        return folder
    }
}
