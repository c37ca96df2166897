import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers

/// Generates text with many adapters over one base model within a program, as `peft serve` does over HTTP: requests for different
/// adapters and methods share decode steps and join and leave between them (Orca, Yu et al. 2022; S-LoRA, Sheng et al. 2023).
///
/// The model belongs to a thread of the server's own. All methods may be called from any thread or task.
public final class AdapterServer: Sendable {
    /// Limits of a server.
    public struct Limits: Sendable {
        /// Maximum number of sequences in the running batch.
        public var sequences = 32
        /// Maximum number of requests that wait; further ones are an error.
        public var waiting = 256
        /// Maximum number of prompt tokens that a step reads, so that running sequences go on meanwhile.
        public var prefillTokens = 256
        /// Memory of all KV caches, in bytes.
        public var cacheBytes = 2 << 30
        /// Memory of all adapters, in bytes; those used least recently make room and are loaded again when they are needed.
        public var adapterBytes = 1 << 30

        /// The defaults of `peft serve`.
        public init() {}
    }

    /// A part of an answer.
    public enum Event: Sendable, Equatable {
        /// Text that is final.
        case text(String)
        /// The end of the answer; nothing follows.
        case end(Summary)
    }

    /// How an answer ended.
    public struct Summary: Sendable, Equatable {
        /// Whether the maximum number of tokens ended it, rather than an end token or a stop text.
        public let isCutOff: Bool
        /// Number of tokens of the prompt.
        public let promptTokens: Int
        /// Number of generated tokens, including the end token.
        public let generatedTokens: Int
    }

    private let engine: Engine

    private init(_ engine: Engine) { self.engine = engine }

    /// Loads a base model and starts its thread.
    /// - Parameters:
    ///   - model: a folder in Hugging Face's layout with a tokenizer, or a GGUF file.
    ///   - limits: sizes of batches, queue and memory.
    /// - Throws: ``PEFTError`` if the model can't be loaded or doesn't generate text.
    public static func start(_ model: URL, limits: Limits = Limits()) async throws -> AdapterServer {
        var settings = EngineSettings()
        (settings.maxRunning, settings.maxWaiting) = (max(1, limits.sequences), max(1, limits.waiting))
        settings.prefillChunk = max(1, limits.prefillTokens)
        (settings.cacheBytes, settings.adapterBytes) = (limits.cacheBytes, limits.adapterBytes)
        let engine = try await Engine.start(settings, tokenizer: Tokenizer.load(folder: model)) {
            try ModelFolder(model).keepingStoredWeights().load()
        }
        guard engine.model.head.task.generates else {
            engine.stop()
            throw PEFTError(
                "the \(engine.model.family) model in \(model.path) does not generate text",
                remedy: "use a model that generates text")
        }
        return AdapterServer(engine)
    }

    deinit { engine.stop() }

    // MARK: Adapters

    /// The names of the adapters.
    public var adapters: [String] { engine.adapters.map(\.name) }

    /// Loads an adapter of any method.
    /// - Parameters:
    ///   - name: the adapter's name.
    ///   - folder: the adapter's folder.
    ///   - replaces: whether it may take the place of an adapter with this name; running answers continue with the old one.
    /// - Throws: ``PEFTError`` if the name is taken, or the adapter doesn't fit the model or the memory.
    public func load(_ name: String, from folder: URL, replaces: Bool = false) async throws {
        try await Self.converting { try await engine.loadAdapter(name, from: folder, replaces: replaces) }
    }

    /// Forgets an adapter; running answers continue with it.
    /// - Throws: ``PEFTError`` for an unknown name.
    public func unload(_ name: String) async throws {
        try await Self.converting { try await engine.unloadAdapter(name) }
    }

    private static func converting(_ body: () async throws -> Void) async throws {
        do { try await body() } catch let error as ServingError { throw error.libraryError }
    }

    // MARK: Answers

    /// Continues a prompt; for an encoder-decoder, answers it.
    ///
    /// The answer is that of ``Generator`` with the adapter alone, whatever other requests run.
    /// - Parameters:
    ///   - prompt: the text, encoded with the base's tokenizer and its special tokens.
    ///   - adapter: an adapter's name; `nil` for the base model.
    ///   - parameters: how tokens are chosen; beams are not supported.
    ///   - stopTexts: texts before which the answer ends.
    /// - Returns: parts of the answer as they are generated. Ending the iteration cancels the request. The stream throws
    ///   ``PEFTError`` if the request fails.
    /// - Throws: ``PEFTError`` for an unknown adapter, invalid parameters, a prompt that is too long, and while
    ///   ``Limits/waiting`` requests wait.
    public func generate(
        _ prompt: String, adapter: String? = nil, parameters: GenerateParameters = GenerateParameters(),
        stopTexts: [String] = []
    ) throws -> AsyncThrowingStream<Event, any Error> {
        if let beams = parameters.beams, beams > 1 {
            throw PEFTError("a server has no beam search (got \(beams) beams)", remedy: "use Generator")
        }
        let tokens = try withTokenizerErrors { engine.tokenizer.encode(text: prompt) }
        var request = GenerationRequest(prompt: tokens, adapter: adapter)
        request.parameters = parameters
        request.parameters.beams = 1
        request.samplesByDefault = false
        request.stopTexts = stopTexts
        let events: AsyncStream<GenerationEvent>
        do { events = try engine.submit(request) } catch let error as ServingError { throw error.libraryError }
        return AsyncThrowingStream { continuation in
            let task = Task {
                var isCutOff = false
                for await event in events {
                    switch event {
                    case .token(_, _, let text, _): if !text.isEmpty { continuation.yield(.text(text)) }
                    case .finished(_, let text, let reason):
                        if !text.isEmpty { continuation.yield(.text(text)) }
                        isCutOff = reason == .length
                    case .done(let usage):
                        let summary = Summary(
                            isCutOff: isCutOff, promptTokens: usage.promptTokens,
                            generatedTokens: usage.completionTokens)
                        continuation.yield(.end(summary))
                    case .failed(let error): return continuation.finish(throwing: error.libraryError)
                    }
                }
                continuation.finish()
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    /// Ends the server; requests that are not complete fail.
    public func stop() { engine.stop() }
}

extension ServingError {
    /// The error as the library's functions throw it.
    fileprivate var libraryError: PEFTError { PEFTError(message) }
}
