import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

/// The small base models, which are the fixtures of another target.
enum Models {
    static let folder = Checkout.models

    /// - Parameter name: a fixture's folder; `family:task` for an encoder or decoder with a new head.
    static func load(_ name: String, dtype: DType = .float32) throws -> any LanguageModel {
        let parts = name.split(separator: ":").map(String.init)
        guard parts.count == 2, let task = ModelTask(rawValue: parts[1]) else {
            return try ModelFolder(folder.appendingPathComponent(name)).load(dtype: dtype)
        }
        return try headFolder(parts[0], task).load(dtype: dtype)
    }

    static func headFolder(_ family: String, _ task: ModelTask) throws -> ModelFolder {
        let labels = task.hasLabels ? ["a", "b", "c", "d", "e"] : []
        return try ModelFolder(folder.appendingPathComponent("heads/\(family)")).with(
            ModelHead(task: task, labels: labels))
    }

    /// Rows for a model of `heads`, whose vocabulary and positions are few.
    static func headRows(_ task: ModelTask) -> [(input: [Int], target: [Int])] {
        (0..<3).map { row in
            let input = (0..<(5 + 2 * row)).map { 2 + ($0 * 7 + row) % 44 }
            let target = task == .tokenClassification ? input.indices.map { $0 % 2 == 0 ? $0 % 5 : -100 } : [row]
            return (input, target)
        }
    }

    /// Rows of three lengths, the same for all models.
    static let rows: [(input: [Int], target: [Int])] = [
        ((0..<23).map { 2 + ($0 * 37) % 90 }, [5, 80, 33, 12, 1]),
        ((0..<7).map { 2 + ($0 * 53) % 90 }, [90, 2, 41, 7, 66, 23, 1]),
        ((0..<30).map { 2 + ($0 * 11) % 90 }, [1]),
    ]

    /// The same rows as a model's architecture reads them: an encoder names one of five classes.
    static func rows(for model: any LanguageModel) -> [(input: [Int], target: [Int])] {
        if model.configuration["vocab_size"]?.int == 48 { return headRows(model.head.task) }
        return model.generates ? rows : rows.enumerated().map { ($1.input, [$0 * 2]) }
    }
}

extension MethodChoice {
    /// A method as the tests use it.
    static func forTests(_ method: any PEFTMethod.Type, on base: String = "") -> MethodChoice {
        var choice = MethodChoice(method)
        // The models of `heads` have few words.
        if base.contains(":"), method.name == "trainable_tokens" {
            try? choice.set("trainable-tokens", to: "2,9,16,30")
            return choice
        }
        let options =
            (base == "decoders/mt5" ? SmallMethods.optionsOnMT5[method.name] : nil)
            ?? SmallMethods.options[method.name] ?? [:]
        for (option, value) in options { try? choice.set(option, to: value) }
        return choice
    }
}

extension LanguageModel {
    /// Scores of all target positions, without gradients and dropout.
    func scores(_ rows: [(input: [Int], target: [Int])]? = nil) throws -> Tensor {
        let rows = rows ?? Models.rows(for: self)
        return try withTorchErrors { withoutGradients { logits(batch(rows, device: .cpu)) } }
    }

    /// Loss per target token.
    func loss(_ rows: [(input: [Int], target: [Int])]? = nil) -> Tensor {
        let batch = batch(rows ?? Models.rows(for: self), device: .cpu)
        return lossSum(batch, labelSmoothing: 0) / Double(batch.targetCount)
    }

    /// Copies of all the model's own tensors.
    func snapshot() -> [String: Tensor] {
        Dictionary(parameters().map { ($0.path, $0.parameter.tensor.detached().clone()) }, uniquingKeysWith: { $1 })
    }

    /// Paths of the tensors that differ in any bit from a snapshot.
    func changed(since snapshot: [String: Tensor]) -> Set<String> {
        Set(parameters().filter { snapshot[$0.path].map($0.parameter.tensor.isIdentical) != true }.map(\.path))
    }

    /// Number of adapters at all sites.
    var adapterCount: Int { namedModules().reduce(0) { $0 + (($1.module as? any AdapterSite)?.attached.count ?? 0) } }
}

extension Adapter {
    /// Adds random numbers to everything that is trained beside the model's own tensors, as if it had been trained.
    func randomize(seed: UInt64, deviation: Double = 0.2) throws {
        var random = SeededRandom(seed: seed)
        try withTorchErrors {
            for (_, parameter) in added where parameter.isTrained {
                let tensor = parameter.parameter.tensor.detached()
                let noise = Tensor.zeros(like: tensor)
                noise.fillNormal(deviation: deviation, from: &random)
                tensor.add(noise)
            }
            for trained in trained where trained.base != nil {
                let noise = Tensor.zeros(like: trained.values)
                noise.fillNormal(deviation: deviation, from: &random)
                trained.values.detached().add(noise)
            }
        }
    }

    /// AdamW steps over rows taken in turn.
    /// - Returns: the losses.
    @discardableResult
    func train(
        steps: Int, rate: Double, rows given: [(input: [Int], target: [Int])]? = nil
    ) throws -> [Double] {
        let rows = given ?? Models.rows(for: model)
        let optimizer = AdamW(parameters, rateFactors: rateFactors, weightDecay: 0.01)
        return try withTorchErrors {
            (0..<steps).map { step in
                let loss = model.loss([rows[step % 3], rows[(step + 1) % 3]])
                loss.backward()
                optimizer.update(learningRate: rate)
                optimizer.clearGradients()
                return loss.item()
            }
        }
    }
}

/// The ``PEFTError`` that `body` throws.
func failure(
    sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) throws -> PEFTError {
    try #require(throws: PEFTError.self, sourceLocation: sourceLocation) { try body() }
}

/// Changes the fields of an adapter's `adapter_config.json`.
func rewriteConfiguration(_ folder: URL, _ change: (inout [String: JSON]) throws -> Void) throws {
    try JSON.rewrite(folder.appendingPathComponent("adapter_config.json"), change)
}

/// Changes the tensors of an adapter's `adapter_model.safetensors`.
func rewriteTensors(_ folder: URL, _ change: (inout [String: Tensor]) throws -> Void) throws {
    let url = folder.appendingPathComponent("adapter_model.safetensors")
    let file = try SafetensorsFile(url)
    var tensors = Dictionary(
        uniqueKeysWithValues: try file.entries.keys.map { ($0, try file.tensor($0).clone()) })
    try change(&tensors)
    try SafetensorsFile.write(tensors, metadata: file.metadata, to: url)
}

/// Whether a method fits a base model. One that doesn't says what to do instead.
func fits(_ choice: MethodChoice, _ base: String) throws -> Bool {
    let outline = ModelOutline(try Models.load(base))
    do { _ = try choice.plan(for: outline) } catch let error as PEFTError {
        #expect(error.remedy != nil, "\(choice.label) on \(base): \(error)")
        return false
    }
    return true
}
