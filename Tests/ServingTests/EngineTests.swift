import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Serving
import Synchronization
import TestSupport
import Testing

/// Requests that share steps get what each gets alone.
@Suite struct EngineTests {
    private static let methods: [any PEFTMethod.Type] = [
        LoRA.self, DoRA.self, IA3.self, PromptTuning.self, PrefixTuning.self, Houlsby.self, LayerNormTuning.self,
    ]
    /// Prompts of several lengths, some of them longer than a step reads.
    private static let prompts = [[5], (0..<23).map { 2 + $0 * 7 % 90 }, (0..<11).map { 90 - $0 * 3 }]

    @Test(arguments: [
        "llama", "gpt2", "t5-v1.1", "decoders/bart", "decoders/gemma3", "decoders/phi3-longrope", "decoders/bloom",
    ])
    func manyRequestsGetTheirOfflineTokens(base: String) async throws {
        // The full set once, and of other families what their attention concerns.
        let methods =
            base == "llama" ? Self.methods : [LoRA.self, PromptTuning.self, PrefixTuning.self, LayerNormTuning.self]
        try await SmallServer.run(base, methods) { server in
            let engine = try await server.engine { $0.prefillChunk = 8 }
            defer { engine.stop() }
            let names: [String?] = methods.map { $0.name } + [nil]
            let parameters = GenerateParameters(maxNewTokens: 12, temperature: 0)
            var expected: [String: [[Int]]] = [:]
            for name in names { expected[name ?? ""] = try server.offline(Self.prompts, adapter: name, parameters) }
            // All texts must not be the same.
            #expect(Set(expected.values).count > 3)
            try await withThrowingTaskGroup(of: (String, Int, [Int]).self) { group in
                for (index, prompt) in Self.prompts.enumerated() {
                    for name in names {
                        let events = try engine.submit(GenerationRequest(prompt, name, most: 12))
                        group.addTask {
                            let tokens = try await Answer(events).tokens[0]
                            return (name ?? "", index, tokens)
                        }
                    }
                    // Later requests join a running batch.
                    try await Task.sleep(for: .milliseconds(5))
                }
                for try await (name, index, tokens) in group {
                    let end = server.endTokens
                    #expect(tokens.filter { !end.contains($0) } == expected[name]?[index], "\(name) \(index)")
                }
            }
            #expect(try await eventually { engine.statistics.running == 0 && engine.statistics.cacheBytes == 0 })
        }
    }

    /// Sequences of an encoder-decoder share steps with those of other adapters, and with none that act on all.
    @Test func encoderDecodersShareSteps() async throws {
        let methods: [any PEFTMethod.Type] = [
            LoRA.self, IA3.self, PromptTuning.self, PrefixTuning.self, LayerNormTuning.self,
        ]
        try await SmallServer.run("t5-v1.1", methods) { server in
            let gate = Gate()
            let engine = try await server.engine { $0.afterStep = gate.pass }
            defer { engine.stop() }
            func submit(_ adapter: String?) throws -> AsyncStream<GenerationEvent> {
                var request = GenerationRequest(Self.prompts[1], adapter, most: 8)
                request.ignoresEndTokens = true
                return try engine.submit(request)
            }
            gate.isClosed = true
            var all = [try submit(nil)]
            #expect(try await eventually { engine.statistics.running == 1 })
            for method in methods.dropLast() { all.append(try submit(method.name)) }
            gate.isClosed = false
            for events in all { #expect(try await Answer(events).tokens[0].count == 8) }
            // The first one's first step, and eight of the others.
            #expect(try await eventually { engine.statistics.running == 0 })
            #expect(engine.statistics.steps == 9)
            gate.isClosed = true
            all = [try submit(nil)]
            #expect(try await eventually { engine.statistics.running == 1 })
            all.append(try submit("layernorm"))
            gate.isClosed = false
            for events in all { #expect(try await Answer(events).tokens[0].count == 8) }
            #expect(try await eventually { engine.statistics.running == 0 })
            #expect(engine.statistics.steps == 9 + 16)
        }
    }

    /// A prompt whose encoder has no position for it is no other sequence's failure; one that the model has room for may have an
    /// answer as long as its positions.
    @Test func encodersReadPromptsApart() async throws {
        try await SmallServer.run("decoders/bart", [PromptTuning.self]) { server in
            let gate = Gate()
            let engine = try await server.engine { $0.afterStep = gate.pass }
            defer { engine.stop() }
            gate.isClosed = true
            var request = GenerationRequest(Array(repeating: 7, count: 50), most: 60)
            request.ignoresEndTokens = true
            let long = try engine.submit(request)
            #expect(try await eventually { engine.statistics.running == 1 })
            // 64 tokens and the virtual ones.
            let failing = try engine.submit(GenerationRequest(Array(repeating: 7, count: 64), "prompt", most: 4))
            gate.isClosed = false
            let error = try await #require(throws: ServingError.self) { try await Answer(failing) }
            #expect(error.message.contains("64"), "\(error)")
            #expect(try await Answer(long).tokens[0].count == 60)
        }
    }

    @Test(arguments: ["llama", "t5-v1.1"]) func choicesContinueOnePrompt(base: String) async throws {
        try await SmallServer.run(base) { server in
            let engine = try await server.engine { $0.prefillChunk = 4 }
            defer { engine.stop() }
            let prompt = Self.prompts[1]
            var request = GenerationRequest(prompt, most: 8)
            request.choices = 3
            let greedy = try await Answer(engine.submit(request), choices: 3)
            let expected = try server.offline([prompt], adapter: nil, request.parameters)
            #expect(greedy.tokens == Array(repeating: expected[0], count: 3))
            #expect(greedy.usage?.promptTokens == prompt.count)
            // The prompt is read once.
            #expect(engine.statistics.promptTokens == prompt.count)
            request.parameters.temperature = 1
            let sampled = try await Answer(engine.submit(request), choices: 3)
            #expect(Set(sampled.tokens).count > 1)
        }
    }

    @Test func seedsDecideWhateverElseRuns() async throws {
        try await SmallServer.run("llama", [LoRA.self, IA3.self]) { server in
            let engine = try await server.engine()
            defer { engine.stop() }
            let request = GenerationRequest([7, 8], "lora", most: 16, temperature: 1.2, seed: 3)
            let alone = try await Answer(engine.submit(request))
            // The library draws the same.
            let expected = try server.offline([request.prompt], adapter: "lora", request.parameters)[0]
            #expect(alone.tokens[0] == expected)
            let others = try (0..<6).map {
                try engine.submit(GenerationRequest([$0 + 2, 5], ["ia3", nil][$0 % 2], most: 30, temperature: 1))
            }
            let together = try await Answer(engine.submit(request))
            #expect(together.tokens == alone.tokens)
            for events in others { _ = try await Answer(events) }
            let other = try await Answer(
                engine.submit(GenerationRequest([7, 8], "lora", most: 16, temperature: 1.2, seed: 4)))
            #expect(other.tokens != alone.tokens)
        }
    }

    @Test func scoresAreThoseOfTheUnmodifiedLogits() async throws {
        try await SmallServer.run("llama") { server in
            let engine = try await server.engine()
            defer { engine.stop() }
            var request = GenerationRequest([7, 8], most: 4)
            request.logProbabilities = 5
            let plain = try await Answer(engine.submit(request))
            for score in plain.scores[0] {
                #expect(score.chosen == score.best[0])
                #expect(score.best.count == 5)
                #expect(score.best.map(\.logProbability) == score.best.map(\.logProbability).sorted(by: >))
            }
            // Forbidding the best token chooses the second, with its own probability.
            let first = plain.scores[0][0]
            request.bias.logitBias = [first.chosen.token: -100]
            let biased = try await Answer(engine.submit(request))
            #expect(biased.scores[0][0].chosen == first.best[1])
        }
    }

    @Test func penaltiesForbidRepetition() async throws {
        try await SmallServer.run("llama") { server in
            let engine = try await server.engine()
            defer { engine.stop() }
            var request = GenerationRequest([7, 8], most: 24)
            request.ignoresEndTokens = true
            request.bias.presencePenalty = 100
            let tokens = try await Answer(engine.submit(request)).tokens[0]
            #expect(tokens.count == 24 && Set(tokens).count == 24)
            request.bias = .init()
            let repeated = try await Answer(engine.submit(request)).tokens[0]
            #expect(Set(repeated).count < 24)
        }
    }

    @Test func textsEndAtStopTexts() async throws {
        try await SmallServer.run("llama") { server in
            let engine = try await server.engine()
            defer { engine.stop() }
            var request = GenerationRequest([7, 8], most: 12)
            request.ignoresEndTokens = true
            let whole = try await Answer(engine.submit(request))
            #expect(whole.reasons == [.length])
            #expect(whole.texts[0] == server.tokenizer.decode(tokens: whole.tokens[0]))
            // From within the third word to within the fourth: no token ends there.
            let words = whole.texts[0].split(separator: " ")
            let stop = String(words[2].dropFirst()) + " " + String(words[3].dropLast())
            let at = try #require(whole.texts[0].range(of: stop))
            request.stopTexts = ["never", stop]
            let stopped = try await Answer(engine.submit(request))
            #expect(stopped.texts[0] == String(whole.texts[0][..<at.lowerBound]))
            #expect(stopped.reasons == [.stop(text: stop)])
            request.includesStopText = true
            #expect(try await Answer(engine.submit(request)).texts[0] == String(whole.texts[0][..<at.upperBound]))
        }
    }

    @Test func jsonIsWhatTheSchemaSays() async throws {
        let folder = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat/model")
        let engine = try await Engine.start(tokenizer: Tokenizer.load(folder: folder)) {
            try ModelFolder(folder).load()
        }
        defer { engine.stop() }
        let schema = #"{"type": "array", "items": {"enum": ["x", 12, null]}, "minItems": 2, "maxItems": 3}"#
        var request = GenerationRequest(engine.tokenizer.encode(text: "Hello"), most: 100, temperature: 1.5, seed: 5)
        request.responseFormat = try .schema(schema.utf8, name: "schema")
        request.choices = 3
        let answer = try await Answer(engine.submit(request), choices: 3)
        for (text, reason) in zip(answer.texts, answer.reasons) {
            let elements = try #require(JSON.parse(Data(text.utf8), name: "text").array)
            #expect(2...3 ~= elements.count && elements.allSatisfy { ["x", 12, nil].contains($0) }, "\(text)")
            #expect(reason == .stop(text: nil))
        }
        request.ignoresEndTokens = true
        #expect(throws: ServingError.self) { try engine.submit(request) }
    }

    @Test func vocabulariesThatCannotWriteJSONAreRejected() async throws {
        try await SmallServer.run("llama") { server in
            let engine = try await server.engine()
            defer { engine.stop() }
            var request = GenerationRequest([7, 8], most: 4)
            request.responseFormat = .jsonObject
            let error = #expect(throws: ServingError.self) { try engine.submit(request) }
            #expect(error?.kind == .invalid && error?.parameter == "response_format")
        }
    }

    // MARK: Limits

    @Test func clientsThatLeaveFreeTheirMemory() async throws {
        try await SmallServer.run("llama", [LoRA.self]) { server in
            let gate = Gate()
            let engine = try await server.engine { $0.afterStep = gate.pass }
            defer { engine.stop() }
            gate.isClosed = true
            let task = Task {
                var request = GenerationRequest([7, 8], "lora", most: 120)
                request.ignoresEndTokens = true
                for await _ in try engine.submit(request) { break }
            }
            try await task.value
            gate.isClosed = false
            // A token arrives before the statistics of its step.
            #expect(try await eventually { engine.statistics.finished["abort"] == 1 })
            #expect(engine.statistics.running == 0 && engine.statistics.cacheBytes == 0)
            #expect(engine.statistics.generationTokens == 1)
        }
    }

    @Test func memoryLimitsTheBatch() async throws {
        try await SmallServer.run("llama") { server in
            let probe = try await server.engine()
            let bytes = probe.model.bytesPerToken
            probe.stop()
            // Two sequences of 2 + 20 tokens.
            let largest = Mutex(0)
            let gate = Gate()
            let engine = try await server.engine {
                $0.cacheBytes = 50 * bytes
                $0.afterStep = { statistics in
                    gate.pass(statistics)
                    largest.withLock { $0 = max($0, statistics.cacheBytes) }
                }
            }
            defer { engine.stop() }
            gate.isClosed = true
            let all = try (0..<6).map { try engine.submit(GenerationRequest([7 + $0, 8], most: 20)) }
            gate.isClosed = false
            for events in all { _ = try await Answer(events) }
            #expect(largest.withLock { $0 } == 44 * bytes)
            #expect(throws: ServingError.self) { try engine.submit(GenerationRequest([7, 8], most: 60)) }
            #expect(throws: ServingError.self) { try engine.submit(GenerationRequest([7, 8], most: 1000)) }
        }
    }

    @Test func aFullQueueIsBusy() async throws {
        try await SmallServer.run("llama") { server in
            let gate = Gate()
            let engine = try await server.engine {
                $0.maxRunning = 1
                $0.maxWaiting = 1
                $0.afterStep = gate.pass
            }
            defer { engine.stop() }
            gate.isClosed = true
            var long = GenerationRequest([7, 8], most: 120)
            long.ignoresEndTokens = true
            let first = try engine.submit(long)
            #expect(try await eventually { engine.statistics.running == 1 })
            // The first runs and the second waits.
            let second = try engine.submit(long)
            let error = #expect(throws: ServingError.self) { try engine.submit(long) }
            guard case .busy(let seconds)? = error?.kind else {
                return #expect(Bool(false), "\(String(describing: error))")
            }
            #expect(seconds >= 1)
            gate.isClosed = false
            #expect(try await Answer(first).tokens[0].count == 120)
            #expect(try await Answer(second).tokens[0].count == 120)
        }
    }

    @Test func lateRequestsFail() async throws {
        try await SmallServer.run("llama") { server in
            let engine = try await server.engine()
            defer { engine.stop() }
            var request = GenerationRequest([7, 8], most: 100)
            request.deadline = .now - .seconds(1)
            let error = try await #require(throws: ServingError.self) { try await Answer(engine.submit(request)) }
            #expect(error.kind == .deadline)
        }
    }

    @Test func unknownNamesAndTokensAreRejected() async throws {
        try await SmallServer.run("llama", [LoRA.self]) { server in
            let engine = try await server.engine()
            defer { engine.stop() }
            let name = #expect(throws: ServingError.self) {
                try engine.submit(GenerationRequest([7], "lara", most: 1))
            }
            #expect(name?.kind == .unknownModel && name?.message.contains("did you mean 'lora'?") == true)
            #expect(throws: ServingError.self) { try engine.submit(GenerationRequest([96], most: 1)) }
            #expect(throws: ServingError.self) { try engine.submit(GenerationRequest([-1], most: 1)) }
            #expect(throws: ServingError.self) { try engine.submit(GenerationRequest([], most: 1)) }
            #expect(throws: ServingError.self) { try engine.submit(GenerationRequest([7], most: 1, temperature: -1)) }
        }
    }

    @Test func nothingIsAcceptedAfterDraining() async throws {
        try await SmallServer.run("llama") { server in
            let engine = try await server.engine()
            let events = try engine.submit(GenerationRequest([7, 8], most: 30))
            engine.drain()
            #expect(throws: ServingError.self) { try engine.submit(GenerationRequest([7], most: 1)) }
            #expect(try await Answer(events).usage != nil)
            engine.stop()
        }
    }
}

extension SmallServer {
    /// The model's end tokens.
    var endTokens: Set<Int> { [1] }
}
