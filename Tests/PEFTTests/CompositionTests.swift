import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Stacks and fusions of bottleneck adapters, as AdapterHub's program computes, trains and stores them
/// (`make_adapterhub_fixtures.py`).
@Suite struct CompositionTests {
    private static let names = [
        "bert-fusion", "llama-fusion", "bert-fusion-static", "llama-fusion-residual", "llama-stack",
        "bert-stack-fusion",
    ]

    private func folder(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/adapterhub/\(name)")
    }

    /// The model's own tensors and what the fixture was made with: the last three tokens, or the second class.
    private func model(_ name: String) throws -> (any LanguageModel, row: (input: [Int], target: [Int])) {
        if name.hasPrefix("bert") { return (try Models.load("bert"), ([5, 17, 33, 60, 7, 21], [1])) }
        return (try Models.load("llama"), ([5, 17, 33], [60, 7, 21]))
    }

    private func write(_ source: (configuration: [String: JSON], tensors: [String: Tensor]), to folder: URL) throws {
        try AtomicFile.write(
            JSON.object(source.configuration).text(), to: folder.appendingPathComponent("adapter_config.json"))
        try SafetensorsFile.write(source.tensors, to: folder.appendingPathComponent("adapter_model.safetensors"))
    }

    /// The key of a trained tensor here for its name there.
    private func key(_ name: String, _ composition: BottleneckComposition.Configuration, on model: any LanguageModel)
        throws -> String
    {
        let last = composition.levels.count - 1
        let fused = composition.levels[last].map(\.name).joined(separator: ",")
        let mark = composition.levels[last].count > 1 ? ".adapter_fusion_layer.\(fused)." : ".adapters.\(fused)."
        let range = try #require(name.range(of: mark))
        let source = try AdapterHubFile(
            settings: [:], version: "", file: "",
            weights: SafetensorsFile(folder("llama-stack/expected.safetensors")), model: model)
        let site = try source.sublayer(String(name[..<range.lowerBound]), in: ModelOutline(model))
        let part = name[range.upperBound...].replacing("adapter_down.0", with: "down").replacing(
            "adapter_up", with: "up")
        return
            "base_model.model.\(site.path).\(composition.levels[last].count > 1 ? "fusion.\(last)" : fused).\(part)"
    }

    @Test(arguments: names) func compositionsComputeAndTrainTheSame(name: String) throws {
        let (model, row) = try model(name)
        let expected = try SafetensorsFile(folder(name).appendingPathComponent("expected.safetensors"))
        try withTemporaryFolder { copy in
            try write(AdapterHubAdapter.read(folder(name), on: model), to: copy)
            let source = try AdapterFolder(copy)
            #expect(source.notes.isEmpty)
            let adapter = try source.attach(to: model, isTrainable: true)
            let composition = try #require(source.choice.configuration as? BottleneckComposition.Configuration)
            let logits = try expected.tensor("logits")
            let own = try model.scores([row])
            #expect(
                relativeDifference(
                    own, name.hasPrefix("bert") ? logits.reshaped(own.shape) : logits.narrowed(axis: 0, 2..<5)) < 1e-4
            )
            let hook = adapter.choice.trainingHook(for: adapter)
            #expect((hook != nil) == ["bert-fusion", "llama-fusion", "bert-stack-fusion"].contains(name))
            func loss() -> Tensor {
                let loss = model.loss([row])
                return hook?.penalty().map { loss + $0 } ?? loss
            }
            try withTorchErrors { loss().backward() }
            let parameters = Dictionary(
                adapter.added.map { ($0.key, $0.parameter) }, uniquingKeysWith: { first, _ in first })
            let gradients = expected.entries.keys.filter { $0.hasPrefix("gradient.") }
            #expect(gradients.count >= 4)
            for gradient in gradients {
                let key = try key(String(gradient.dropFirst("gradient.".count)), composition, on: model)
                let parameter = try #require(parameters[key], "\(key)")
                #expect(parameter.isTrained)
                let (own, theirs) = (
                    try #require(parameter.parameter.tensor.grad), try expected.tensor(gradient)
                )
                if key.hasSuffix(".key.bias") {
                    // The softmax doesn't depend on it: both are rounding.
                    #expect(own.abs().max().item() < 1e-6 && theirs.abs().max().item() < 1e-6, "\(key)")
                } else {
                    #expect(relativeDifference(own, theirs) < 1e-3, "\(key)")
                }
            }
            // The adapters beneath, and those that are fused, are frozen.
            for parameter in adapter.added where !parameter.parameter.isTrained {
                #expect(parameter.parameter.parameter.tensor.grad == nil, "\(parameter.key)")
            }
            // The base's classifier isn't trained there.
            let trained = adapter.added.filter(\.parameter.isTrained).map(\.parameter.parameter)
            for parameter in trained { parameter.tensor.grad = nil }
            let optimizer = AdamW(trained, weightDecay: 0.01)
            let losses = try withTorchErrors {
                (0..<20).map { _ in
                    let loss = loss()
                    loss.backward()
                    optimizer.update(learningRate: 5e-3)
                    optimizer.clearGradients()
                    return loss.item()
                }
            }
            let theirs = try expected.tensor("losses").array(Float.self)
            for (own, other) in zip(losses, theirs) { #expect(abs(own - Double(other)) < 1e-3 * abs(Double(other))) }
            #expect(losses[19] < losses[0])
        }
    }

    /// Written for AdapterHub, the folders and tensors are those that were read.
    @Test(arguments: names) func compositionsAreWritten(name: String) throws {
        let (model, _) = try model(name)
        let source = try folder(name)
        try withTemporaryFolder { copy in
            try write(AdapterHubAdapter.read(source, on: model), to: copy)
            let (setup, parts) = try #require(
                try AdapterHubAdapter.convertedComposition(AdapterFolder(copy), on: model))
            #expect(
                setup["adapter_setup"]
                    == (try JSON.read(source.appendingPathComponent("adapter_setup.json")))["adapter_setup"])
            for part in parts {
                let folder = source.appendingPathComponent(part.folder)
                let safe = folder.appendingPathComponent(part.tensorsFile)
                let pickle = folder.appendingPathComponent(
                    part.tensorsFile == "adapter.safetensors"
                        ? "pytorch_adapter.bin" : "pytorch_model_adapter_fusion.bin")
                let original: any TensorFile =
                    FileManager.default.fileExists(atPath: safe.path)
                    ? try SafetensorsFile(safe) : try TorchFile(pickle)
                #expect(Set(part.tensors.keys) == Set(original.entries.keys), "\(part.folder)")
                for (key, tensor) in part.tensors {
                    #expect(relativeDifference(tensor, try original.tensor(key)) < 1e-6, "\(key)")
                }
                let settings = try #require(
                    JSON.read(folder.appendingPathComponent(part.settingsFile))["config"]?.object)
                for (key, value) in part.configuration["config"]?.object ?? [:]
                where !["init_weights", "reduction_factor", "dropout_prob", "value_before_softmax"].contains(key) {
                    #expect(
                        settings[key] == value || settings[key]?.double == value.double && value.double != nil,
                        "\(key)")
                }
            }
            let subfolders = try FileManager.default.contentsOfDirectory(atPath: source.path).filter {
                !$0.contains(".")
            }
            #expect(Set(parts.map(\.folder)) == Set(subfolders))
        }
    }

    /// Adapters trained here: a stack is one upon the other, and a new fusion starts with their mean.
    @Test func adaptersAreCombined() throws {
        let model = try Models.load("llama")
        try withTemporaryFolder { folder in
            var parts: [(name: String, folder: AdapterFolder)] = []
            let methods: [any PEFTMethod.Type] = [Houlsby.self, Pfeiffer.self, Pfeiffer.self]
            for (index, method) in methods.enumerated() {
                var choice = MethodChoice(method)
                try choice.set("rank", to: "\(3 + index)")
                let adapter = try Adapter(choice, on: model, seed: UInt64(index))
                try adapter.randomize(seed: UInt64(index))
                let saved = folder.appendingPathComponent("\(index)")
                try adapter.save(to: saved, base: "llama")
                try adapter.deactivate()
                parts.append(("a\(index)", try AdapterFolder(saved)))
            }
            let plain = try model.scores()
            let (first, second) = (try parts[0].folder.attach(to: model), try parts[1].folder.attach(to: model))
            let both = try model.scores()
            try second.deactivate()
            try first.deactivate()
            let stack = try BottleneckComposition.combining(Array(parts[0...1]), .stack, on: model, seed: 0)
            #expect(relativeDifference(try model.scores(), both) < 1e-6)
            // Four tensors of the upper adapter in each of three layers.
            #expect(stack.parameters.count == 4 * 3)
            try stack.deactivate()
            #expect(try model.scores().isIdentical(to: plain))

            // Equal scores weigh equally.
            let fusion = try BottleneckComposition.combining(Array(parts[1...2]), .fusion, on: model, seed: 1)
            let fused = try model.scores()
            for parameter in fusion.added where parameter.key.contains(".query.") {
                parameter.parameter.parameter.tensor.detached().fill(0)
            }
            let mean = try model.scores()
            #expect(relativeDifference(mean, fused) > 1e-7)
            let saved = folder.appendingPathComponent("fusion")
            try fusion.save(to: saved, base: "llama")
            try fusion.deactivate()
            // A fusion may be a level of a stack.
            let all = try BottleneckComposition.combining(
                [parts[0], ("fused", AdapterFolder(saved))], .stack, on: model, seed: 2)
            #expect(all.choice.label == "stack of a0, fusion of a1, a2")
            let together = try model.scores()
            try all.deactivate()
            let low = try parts[0].folder.attach(to: model)
            let high = try AdapterFolder(saved).attach(to: model)
            #expect(relativeDifference(together, try model.scores()) < 1e-6)
            try high.deactivate()
            try low.deactivate()

            let error = try failure {
                _ = try BottleneckComposition.combining(Array(parts[0...1]), .fusion, on: model, seed: 0)
            }
            #expect(error.problem.contains("different sublayers"))
            #expect(try model.scores().isIdentical(to: plain))
        }
    }

    @Test func whatCannotBeComposedIsNamed() throws {
        let model = try Models.load("bert")
        func problem(_ change: (URL) throws -> Void) throws -> String {
            try withTemporaryCopy(of: folder("bert-fusion")) { copy in
                try change(copy)
                return try failure { _ = try AdapterHubAdapter.read(copy, on: model) }.problem
            }
        }
        func settings(_ key: String, _ value: JSON) throws -> String {
            try problem { copy in
                try JSON.rewrite(copy.appendingPathComponent("a,b,c/adapter_fusion_config.json")) { json in
                    var fields = json["config"]?.object ?? [:]
                    fields[key] = value
                    json["config"] = .object(fields)
                }
            }
        }
        #expect(try settings("temperature", true).contains("temperature"))
        #expect(try settings("gate", true).contains("'gate'"))
        #expect(try settings("value", false).contains("value.weight"))
        func setup(_ value: JSON) throws -> String {
            try problem { copy in
                try JSON.rewrite(copy.appendingPathComponent("adapter_setup.json")) { $0["adapter_setup"] = value }
            }
        }
        #expect(try setup(["type": "Split", "children": []]).contains("'Split'"))
        #expect(try setup(["type": "Fuse", "children": []]).contains("names no adapters"))
        #expect(
            try setup(["type": "Stack", "children": [["type": "single", "children": ["../a"]]]]).contains("'../a'"))
        #expect(
            try problem { try FileManager.default.removeItem(at: $0.appendingPathComponent("b")) }.contains(
                "lacks the folder 'b'"))
    }
}
