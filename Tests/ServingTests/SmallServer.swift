import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Serving
import TestSupport
import Testing
import Torch

@testable import PEFT

/// A small model with a word tokenizer and adapters of several methods, in a temporary folder.
struct SmallServer {
    let base: String
    let folder: URL
    let modelFolder: URL
    let tokenizer: Tokenizer
    /// The adapters' folders by name.
    var adapters: [String: URL] = [:]

    /// Calls `body` with a server's files, which are removed afterwards.
    static func run(
        _ base: String, _ methods: [any PEFTMethod.Type] = [], _ body: (SmallServer) async throws -> Void
    ) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "peft-serving-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        var server = try SmallServer(base: base, folder: folder)
        for (index, method) in methods.enumerated() {
            try server.addAdapter(method.name, MethodChoice(method), seed: UInt64(index))
        }
        try await body(server)
    }

    private init(base: String, folder: URL) throws {
        (self.base, self.folder) = (base, folder)
        let words = folder.appendingPathComponent("tokenizer")
        try FileManager.default.createDirectory(at: words, withIntermediateDirectories: true)
        // Fixtures that differ in the configuration only have the weights of their family.
        var model = Checkout.model(base)
        let files = try FileManager.default.contentsOfDirectory(atPath: model.path)
        if !files.contains(where: { $0.hasPrefix("model") || $0.hasPrefix("pytorch_model") }) {
            let copy = folder.appendingPathComponent("model")
            try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
            let family = Checkout.model(String(base.prefix { $0 != "-" }))
            for (source, name) in [(model, "config.json"), (family, "model.safetensors")] {
                try FileManager.default.copyItem(
                    at: source.appendingPathComponent(name), to: copy.appendingPathComponent(name))
            }
            model = copy
        }
        modelFolder = model
        try WordTokenizer.write(WordTokenizer.words(96), to: words)
        tokenizer = try Tokenizer.load(folder: words)
    }

    func model() throws -> any LanguageModel { try ModelFolder(modelFolder).load() }

    /// Writes an adapter with random values, made on `model` if one is given. Without a deviation it changes nothing.
    mutating func addAdapter(
        _ name: String, _ choice: MethodChoice, seed: UInt64, deviation: Double = 0.3,
        on model: (any LanguageModel)? = nil
    ) throws {
        let adapter = try Adapter(choice, on: model ?? self.model(), seed: seed)
        var random = SeededRandom(seed: seed &+ 100)
        try withTorchErrors {
            let added = adapter.added.filter(\.parameter.isTrained).map(\.parameter.parameter.tensor)
            for tensor in added + adapter.trained.map(\.values) {
                let noise = Tensor.zeros(like: tensor.detached())
                noise.fillNormal(deviation: deviation, from: &random)
                tensor.detached().add(noise)
            }
        }
        let saved = folder.appendingPathComponent(name)
        try adapter.save(to: saved, base: base)
        if model != nil { try adapter.deactivate() }
        adapters[name] = saved
    }

    /// An engine with all adapters.
    func engine(_ change: (inout EngineSettings) -> Void = { _ in }) async throws -> Engine {
        var settings = EngineSettings()
        change(&settings)
        let engine = try await Engine.start(settings, tokenizer: tokenizer) { [self] in try model() }
        for (name, folder) in adapters.sorted(by: { $0.key < $1.key }) {
            try await engine.loadAdapter(name, from: folder)
        }
        return engine
    }

    /// The tokens that the library generates, one prompt at a time.
    func offline(_ prompts: [[Int]], adapter: String?, _ parameters: GenerateParameters) throws -> [[Int]] {
        let set = AdapterSet(on: try model())
        if let adapter, let folder = adapters[adapter] {
            try set.add(AdapterFolder(folder), name: adapter)
            try set.activate(adapter)
        }
        let generator = try Generator(set.model, parameters)
        return try prompts.map { try generator.generate([$0])[0] }
    }
}

extension GenerationRequest {
    init(_ prompt: [Int], _ adapter: String? = nil, most: Int, temperature: Double = 0, seed: UInt64 = 0) {
        self.init(prompt: prompt, adapter: adapter)
        parameters = GenerateParameters(maxNewTokens: most, temperature: temperature, seed: seed)
    }
}

/// A complete answer.
struct Answer: Equatable {
    var tokens: [[Int]]
    var texts: [String]
    var reasons: [FinishReason?]
    var scores: [[TokenLogProbability]]
    var usage: Usage?

    /// - Throws: the ``ServingError`` of a request that fails.
    init(_ events: AsyncStream<GenerationEvent>, choices: Int = 1, onToken: (Int) async throws -> Void = { _ in })
        async throws
    {
        tokens = Array(repeating: [], count: choices)
        texts = Array(repeating: "", count: choices)
        reasons = Array(repeating: nil, count: choices)
        scores = Array(repeating: [], count: choices)
        for await event in events {
            switch event {
            case .token(let choice, let id, let text, let score):
                tokens[choice].append(id)
                texts[choice] += text
                if let score { scores[choice].append(score) }
                try await onToken(tokens[choice].count)
            case .finished(let choice, let text, let reason):
                texts[choice] += text
                reasons[choice] = reason
            case .done(let usage): self.usage = usage
            case .failed(let error): throw error
            }
        }
    }
}

/// Holds an engine after a step with running sequences, while it is closed: what happens during a request doesn't depend
/// on how soon a test's task goes on.
final class Gate: @unchecked Sendable {
    private let condition = NSCondition()
    private var closed = false

    var isClosed: Bool {
        get { condition.withLock { closed } }
        set {
            condition.withLock { closed = newValue }
            condition.broadcast()
        }
    }

    @Sendable func pass(_ statistics: EngineStatistics) {
        condition.withLock { while closed, statistics.running > 0 { condition.wait() } }
    }
}

/// Waits until a condition holds, for at most ten seconds.
func eventually(_ condition: () -> Bool) async throws -> Bool {
    for _ in 0..<1000 {
        if condition() { return true }
        try await Task.sleep(for: .milliseconds(10))
    }
    return false
}
