import Foundation
import LanguageModels
import PEFT
import Serving
import Testing

/// Prompts that begin alike share keys and values, and get what each gets alone.
@Suite struct PrefixTests {
    private static let prompt = (0..<48).map { 2 + $0 * 7 % 90 }

    private static func request(_ adapter: String?, tail: [Int] = []) -> GenerationRequest {
        GenerationRequest(prompt + tail, adapter, most: 10)
    }

    /// LoRA on projections of the last one of three layers.
    private static func last(_ targets: [String]) -> MethodChoice {
        var configuration = LoRA.Configuration()
        configuration.selection = TargetSelection(targets: targets, layers: [2])
        return MethodChoice(LoRA.self, configuration)
    }

    @Test(arguments: ["llama", "gpt2"])
    func prefixesAreReadOnce(base: String) async throws {
        let methods: [any PEFTMethod.Type] = [LoRA.self, PromptTuning.self, PrefixTuning.self, LayerNormTuning.self]
        try await SmallServer.run(base, methods) { server in
            let engine = try await server.engine { $0.prefillChunk = 16 }
            defer { engine.stop() }
            for name in methods.map({ $0.name }) + [nil] {
                for (tail, cached) in [([3, 4], 0), ([5], 48), ([3, 4, 6, 7], 49)] {
                    let request = Self.request(name, tail: tail)
                    let answer = try await Answer(engine.submit(request))
                    // The third prompt goes on as the first one did, or as its answer.
                    #expect(
                        answer.usage.map { $0.cachedTokens >= cached && (cached > 0) == ($0.cachedTokens > 0) }
                            == true)
                    #expect(
                        try server.offline([request.prompt], adapter: name, request.parameters) == answer.tokens,
                        "\(name ?? "")")
                }
            }
            // A running sequence's prompt is known, too.
            let first = try engine.submit(Self.request(nil, tail: [60, 61]))
            #expect(
                try await Answer(engine.submit(Self.request(nil, tail: [60, 62]))).usage?.cachedTokens ?? 0 >= 48)
            _ = try await Answer(first)
        }
    }

    @Test func adaptersBehindTheLastKeysShareTheBases() async throws {
        try await SmallServer.run("llama") { server in
            var server = server
            try server.addAdapter("mlp", Self.last(["gate_proj", "up_proj", "down_proj"]), seed: 1)
            try server.addAdapter("query", Self.last(["q_proj", "o_proj"]), seed: 2)
            try server.addAdapter("value", Self.last(["v_proj", "o_proj"]), seed: 3)
            let engine = try await server.engine()
            defer { engine.stop() }
            #expect(try await Answer(engine.submit(Self.request(nil))).usage?.cachedTokens == 0)
            for (name, cached) in [("mlp", 47), ("query", 47), ("value", 0)] {
                let request = Self.request(name)
                let answer = try await Answer(engine.submit(request))
                #expect(answer.usage?.cachedTokens == cached, "\(name)")
                #expect(
                    try server.offline([request.prompt], adapter: name, request.parameters) == answer.tokens,
                    "\(name)")
            }
        }
    }

    /// Activated LoRA leaves the tokens before the last invocation to the base.
    @Test func promptsShareTheBasesPrefixUpToTheInvocation() async throws {
        try await SmallServer.run("llama") { server in
            var server = server
            var choice = MethodChoice(ALoRA.self)
            try choice.set("invocation-tokens", to: "9,10")
            try server.addAdapter("activated", choice, seed: 4)
            let engine = try await server.engine()
            defer { engine.stop() }
            let (once, twice) = ([9, 10, 5], [9, 10, 5, 7, 9, 10, 6])
            var answers: Set<[[Int]]> = []
            for (name, tail, cached) in [
                (nil, [], 0), ("activated", once, 48), ("activated", once, 50), ("activated", twice, 48),
                (nil, once, 50),
            ] as [(String?, [Int], Int)] {
                let request = Self.request(name, tail: tail)
                let answer = try await Answer(engine.submit(request))
                #expect(answer.usage?.cachedTokens == cached, "\(name ?? "") \(tail)")
                #expect(try server.offline([request.prompt], adapter: name, request.parameters) == answer.tokens)
                answers.insert(answer.tokens)
            }
            #expect(answers.count == 4)
        }
    }

    @Test func prefixesMakeRoomAndEndWithTheirAdapter() async throws {
        try await SmallServer.run("llama", [LoRA.self]) { server in
            let probe = try await server.engine()
            let bytes = probe.model.bytesPerToken
            probe.stop()
            // One and a half sequences of 48 + 10 tokens.
            let engine = try await server.engine { $0.cacheBytes = 87 * bytes }
            defer { engine.stop() }
            for first in 2..<8 {
                var request = Self.request(nil)
                request.prompt[0] = first
                #expect(try await Answer(engine.submit(request)).usage?.cachedTokens == 0)
                let statistics = engine.statistics
                #expect(statistics.prefixBytes + statistics.cacheBytes <= 87 * bytes)
            }
            _ = try await Answer(engine.submit(Self.request("lora")))
            #expect(try await eventually { engine.statistics.prefixBytes > 0 })
            let folder = try #require(server.adapters["lora"])
            try await engine.loadAdapter("lora", from: folder, replaces: true)
            #expect(try await eventually { engine.statistics.prefixBytes == 0 })
            let without = try await server.engine { $0.keepsPrefixes = false }
            defer { without.stop() }
            for _ in 0..<2 {
                #expect(try await Answer(without.submit(Self.request(nil))).usage?.cachedTokens == 0)
            }
            #expect(without.statistics.prefixBytes == 0)
        }
    }
}
