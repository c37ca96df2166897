import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Encoders and decoders with every head compute what transformers computes (`make_head_fixtures.py`).
@Suite struct HeadParityTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var family: String
        var name: String
        /// What `model_type` is to say.
        var type: String?
        var testDescription: String { "\(type ?? family) \(name)" }
        var task: ModelTask? { name == "similarity" ? .embeddings : ModelTask(rawValue: name) }
    }

    static let cases: [Case] = {
        let rows = ["classification", "multi-label", "regression"]
        let all = rows + ["token-classification", "embeddings", "similarity"]
        // One task per kind of head.
        let kinds = ["classification", "token-classification", "embeddings"]
        let further = [
            "modernbert", "modernbert-mean", "electra", "albert", "mpnet", "xlm-roberta-xl", "deberta-v2",
            "deberta-v2-convolution", "nomic_bert",
        ].flatMap { family in kinds.map { Case(family: family, name: $0) } }
        let embedders = ["qwen3-embedding", "gemma3-embedding"].map { Case(family: $0, name: "embeddings") }
        return ["bert", "roberta", "distilbert"].flatMap { family in all.map { Case(family: family, name: $0) } }
            + further + embedders + ["bart", "mbart"].map { Case(family: $0, name: "classification") }
            // XLM-RoBERTa is RoBERTa under another name.
            + all.map { Case(family: "roberta", name: $0, type: "xlm-roberta") }
            + ["llama", "gpt2"].flatMap { family in rows.map { Case(family: family, name: $0) } }
    }()

    @Test(arguments: cases) func logitsLossAndGradientsEqualTransformers(given: Case) throws {
        let fixture = try HeadFixture(given)
        let model = try fixture.load()
        let batch = model.batch(fixture.rows, device: .cpu)
        let logits = try withTorchErrors { withoutGradients { model.logits(batch).array(Double.self) } }
        #expect(relativeDifference(logits, fixture.numbers("logits")) < 1e-4)
        for (_, parameter) in model.parameters() { parameter.tensor.requiresGrad = true }
        let loss = try withTorchErrors {
            let loss = model.lossSum(batch, labelSmoothing: 0) / Double(batch.targetCount)
            loss.backward()
            return loss.item()
        }
        let expected = fixture.expected["loss"]?.double ?? .nan
        #expect(abs(loss - expected) < 1e-4 * abs(expected))
        let gradients = fixture.expected["gradients"]?.object ?? [:]
        #expect(!gradients.isEmpty)
        for (path, parameter) in model.parameters() {
            guard let numbers = gradients[path]?.array?.compactMap(\.double), numbers.count == 2 else {
                #expect(parameter.tensor.grad == nil, "\(path) is not reached in transformers")
                continue
            }
            let own = try #require(parameter.tensor.grad, "no gradient for \(path)").array(Double.self)
            let length = own.reduce(0) { $0 + $1 * $1 }.squareRoot()
            let product = own.enumerated().reduce(0.0) { $0 + $1.element * cos(Double($1.offset) * 0.37) }
            // A key's bias doesn't change any softmax: its gradient is zero but for rounding.
            guard numbers[0] > 1e-5 else { continue }
            #expect(abs(length - numbers[0]) < 1e-3 * numbers[0], "\(path)")
            #expect(abs(product - numbers[1]) < 1e-3 * numbers[0], "\(path)")
        }
        #expect(Set(gradients.keys).isSubset(of: Set(model.parameters().map(\.path))))
    }

    @Test(arguments: cases) func twentyStepsEqualTransformers(given: Case) throws {
        let fixture = try HeadFixture(given)
        let model = try fixture.load()
        let parameters = model.parameters().map(\.parameter)
        for parameter in parameters {
            parameter.tensor = parameter.tensor.detached().clone()
            parameter.tensor.requiresGrad = true
        }
        let optimizer = AdamW(parameters, weightDecay: 0.01)
        let rows = fixture.rows
        let losses = try withTorchErrors {
            (0..<20).map { step in
                let batch = model.batch([rows[step % 3], rows[(step + 1) % 3]], device: .cpu)
                let loss = model.lossSum(batch, labelSmoothing: 0) / Double(batch.targetCount)
                loss.backward()
                optimizer.update(learningRate: 1e-3)
                optimizer.clearGradients()
                return loss.item()
            }
        }
        #expect(relativeDifference(losses, fixture.numbers("losses")) < 1e-3)
    }

    @Test(arguments: ["llama", "gpt2"]) func aDecoderRefusesTasksWithoutAHead(family: String) throws {
        let folder = try ModelFolder(HeadFixture.folder.appendingPathComponent(family))
        for task in [ModelTask.tokenClassification, .sequenceToSequence] {
            let error = try #require(throws: PEFTError.self) {
                _ = try folder.with(ModelHead(task: task, labels: ["a", "b"])).outline()
            }
            #expect(error.problem.contains("can't do the task \(task.rawValue)"))
        }
    }

    @Test func anEncoderDoesNotWrite() throws {
        let folder = try ModelFolder(HeadFixture.folder.appendingPathComponent("distilbert"))
        let error = try #require(throws: PEFTError.self) { _ = try folder.with(ModelHead(task: .causalLM)).outline() }
        #expect(error.problem.contains("it is an encoder"))
    }

    /// What is saved names its task, and reads as what it was.
    @Test(arguments: cases) func aSavedModelKeepsItsTask(given: Case) throws {
        let model = try HeadFixture(given).load()
        let loaded = try withTemporaryFolder { temporary in
            let folder = temporary.appendingPathComponent("saved")
            try model.save(to: folder)
            // The small configurations have no class that could be renamed; published ones do.
            if given.task != .embeddings {
                let isTagging = given.task == .tokenClassification
                try JSON.rewrite(folder.appendingPathComponent("config.json")) {
                    $0["architectures"] = [
                        .string(isTagging ? "XForTokenClassification" : "XForSequenceClassification")
                    ]
                }
            }
            #expect(try !ModelFolder(folder).lacksHead())
            return try ModelFolder(folder).load()
        }
        #expect(loaded.head == model.head)
        let rows = try HeadFixture(given).rows
        let (a, b) = try withTorchErrors {
            withoutGradients {
                (model.logits(model.batch(rows, device: .cpu)), loaded.logits(loaded.batch(rows, device: .cpu)))
            }
        }
        #expect(relativeDifference(a, b) < 1e-6)
    }
}

struct HeadFixture {
    static let folder = Checkout.model("heads")
    let expected: JSON
    private let given: HeadParityTests.Case

    init(_ given: HeadParityTests.Case) throws {
        self.given = given
        expected = try JSON.read(
            Self.folder.appendingPathComponent(given.family).appendingPathComponent("\(given.name).json"))
    }

    var head: ModelHead {
        ModelHead(
            task: given.task ?? .classification,
            labels: given.task == .regression ? [] : (expected["labels"]?.array ?? []).compactMap(\.string),
            pooling: Pooling(expected["pooling"]?.string.flatMap { Pooling.Mode(rawValue: $0) } ?? .mean))
    }

    /// The encoder with the head's tensors of the fixture.
    func load() throws -> any LanguageModel {
        let model = try withTemporaryCopy(of: Self.folder.appendingPathComponent(given.family)) { folder in
            if let type = given.type {
                try JSON.rewrite(folder.appendingPathComponent("config.json")) { $0["model_type"] = .string(type) }
            }
            return try ModelFolder(folder).with(head).load()
        }
        let parameters = Dictionary(model.parameters().map { ($0.path, $0.parameter) }, uniquingKeysWith: { $1 })
        for (path, value) in expected["head"]?.object ?? [:] {
            let shape = value["shape"]?.integers ?? []
            let values = (value["values"]?.array ?? []).compactMap(\.double).map(Float.init)
            let parameter = try #require(parameters[path], "the model has no \(path)")
            #expect(parameter.tensor.shape == shape)
            parameter.tensor = Tensor(values, shape: shape)
        }
        return model
    }

    func numbers(_ key: String) -> [Double] {
        func flat(_ value: JSON) -> [Double] {
            value.array.map { $0.flatMap(flat) } ?? value.double.map { [$0] } ?? []
        }
        return expected[key].map(flat) ?? []
    }

    var rows: [TrainingRow] {
        (expected["rows"]?.array ?? []).map { row in
            func ids(_ key: String) -> [Int] { row[key]?.integers ?? [] }
            return TrainingRow(
                input: ids("input"), target: ids("target"), segments: ids("segments"), score: row["score"]?.double,
                candidates: (row["candidates"]?.array ?? []).map(\.integers))
        }
    }
}
