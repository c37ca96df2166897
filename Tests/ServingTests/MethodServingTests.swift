import Foundation
import LanguageModels
import PEFTSupport
import Serving
import TestSupport
import Testing
import Torch

@testable import PEFT

/// The column "served" of the table in `docs/methods.md`: the engine answers with each method's adapters as the library does.
@Suite struct MethodServingTests {
    private static let traits = MethodTraits.all(PEFTMethods.builtIn)

    /// The methods that fit a model, with options of its size.
    private static func choices(on model: any LanguageModel) -> [MethodChoice] {
        traits.filter(\.isServed).compactMap { traits in
            var choice = MethodChoice(traits.method)
            for (option, value) in SmallMethods.options[traits.method.name] ?? [:] {
                try? choice.set(option, to: value)
            }
            return (try? choice.plan(for: ModelOutline(model))) == nil ? nil : choice
        }
    }

    /// Methods whose adapters change an encoder-decoder in ways of their own.
    private static let encoderDecoder: Set<String> = [
        "lora", "dora", "ia3", "prompt", "p-tuning", "prefix", "houlsby", "loha", "oft", "trainable_tokens",
    ]

    /// Every method's adapter over a Llama, those of several kinds over a T5; BitFit, which needs biases, over a GPT-2.
    @Test(
        arguments: [("llama", []), ("t5-v1.1", encoderDecoder), ("gpt2", ["bitfit", "lora"])]
            as [(String, Set<String>)]
    )
    func adaptersOfEveryMethodGetTheirOfflineTokens(base: String, only: Set<String>) async throws {
        try await SmallServer.run(base) { server in
            var server = server
            let set = AdapterSet(on: try server.model())
            // The fifth token is the invocation of activated LoRA.
            let prompt = [9, 5, 33, 12, 80, 7, 64]
            let parameters = GenerateParameters(maxNewTokens: 6, temperature: 0)
            let generator = try Generator(set.model, parameters)
            var expected: [String: [Int]] = [:]
            for choice in Self.choices(on: set.model) where only.isEmpty || only.contains(choice.method.name) {
                let name = choice.method.name
                try server.addAdapter(name, choice, seed: 3, on: set.model)
                try set.add(AdapterFolder(#require(server.adapters[name])), name: name)
                try set.activate(name)
                expected[name] = try generator.generate([prompt])[0]
                try set.activate(nil)
            }
            // All but the methods that need biases or a new head.
            let missing = Set(Self.traits.filter(\.isServed).map { $0.method.name }).subtracting(expected.keys)
            #expect(missing == ["bitfit", "head"] || !only.isEmpty, "\(missing)")
            #expect(Set(expected.values).count > expected.count / 2)
            let engine = try await server.engine()
            defer { engine.stop() }
            // All of them at once.
            let events = try expected.keys.map { ($0, try engine.submit(GenerationRequest(prompt, $0, most: 6))) }
            for (name, events) in events {
                let tokens = try await Answer(events).tokens[0]
                #expect(tokens.filter { !server.endTokens.contains($0) } == expected[name], "\(name)")
            }
        }
    }

    /// A new head is served over a model with that head.
    @Test func headsGetTheirOfflineScores() async throws {
        try await SmallServer.run("heads/bert") { server in
            var server = server
            let head = ModelHead(task: .classification, labels: ["a", "b", "c"])
            let modelFolder = server.modelFolder
            let load = { @Sendable in try ModelFolder(modelFolder).with(head).load() }
            let model = try load()
            let choices = Self.choices(on: model).filter { $0.method.name == "head" }
            #expect(choices.count == 1)
            try server.addAdapter("head", choices[0], seed: 3, on: model)
            let set = AdapterSet(on: model)
            try set.add(AdapterFolder(#require(server.adapters["head"])), name: "head")
            try set.activate("head")
            let rows = [TrainingRow(input: [2, 17, 30, 5], target: [0])]
            let scores = try withTorchErrors {
                withoutGradients {
                    model.logits(model.batch(rows.map { ($0.input, $0.target) }, device: .cpu)).array(Float.self)
                }
            }
            let engine = try await Engine.start(EngineSettings(), tokenizer: server.tokenizer, load: load)
            defer { engine.stop() }
            try await engine.loadAdapter("head", from: #require(server.adapters["head"]))
            let served = try await engine.encode(EncodingRequest(rows, adapter: "head"))[0]
            #expect(served.count == 3 && zip(served, scores).allSatisfy { abs($0 - $1) < 1e-5 })
            let base = try await engine.encode(EncodingRequest(rows))[0]
            #expect(base != served)
        }
    }

    @Test func fullFineTuningHasNoAdapter() {
        #expect(Self.traits.filter { !$0.isServed }.map { $0.method.name } == ["full"])
    }
}
