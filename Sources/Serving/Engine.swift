import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch

/// Serves many adapters over one base model: requests of any adapters and lengths share decode steps, join and leave between
/// them, and take turns by adapter when there are more than fit.
///
/// The model belongs to one thread of the engine's own, on which it is loaded and every tensor is computed. All methods
/// may be called from any thread.
package final class Engine: @unchecked Sendable {
    package let settings: EngineSettings
    /// The base model's tokenizer.
    package var tokenizer: Tokenizer { shared.tokenizer }
    private let shared: SharedTokenizer
    /// What the engine knows of the model.
    package private(set) var model = ModelFacts()

    /// Properties of the model that requests are checked against.
    package struct ModelFacts: Sendable {
        package var family = ""
        /// Number of tokens that the model knows.
        package var vocabularySize = 0
        /// Maximum length of a sequence, prompt and answer together.
        package var contextLength = 0
        /// KV memory per token, in bytes.
        package var bytesPerToken = 0
        /// Size of a sequence's states in layers without keys and values, in bytes.
        package var bytesPerSequence = 0
        /// Whether a prompt is read by an encoder, so that it doesn't count as a part of the answer's sequence.
        package var isEncoderDecoder = false
        /// What the model computes; ``Engine/submit(_:)`` is for models that generate text, ``Engine/encode(_:)`` for others.
        package var head = ModelHead(task: .causalLM)
        /// Whether the texts of a pair have token types.
        package var hasSegments = false
        /// Maximum number of new tokens after a prompt; 0 or less if it is too long.
        package func room(after length: Int) -> Int { contextLength - (isEncoderDecoder ? 0 : length) }

        package var defaults = GenerationDefaults(startToken: nil, endTokens: [], padToken: 0)
        var generation: GenerationSource?
    }

    private let constraints = ConstraintCache()

    /// Protects all that follows; signals new work to the engine's thread.
    private let condition = NSCondition()
    private var commands: [(EngineLoop) -> Void] = []
    private var queue = ClientQueue<Job>()
    private var encodings = ClientQueue<EncodingJob>()
    private var cancelled: Set<Int> = []
    private var nextID = 0
    private var state = State.running
    private var published = (statistics: EngineStatistics(), adapters: [AdapterStatus]())
    private var rejected = 0
    /// Names of the adapters whose folders are read for requests that wait, by version.
    private var reading: [Int: String] = [:]
    /// Those that were read and are not known to the engine's thread yet.
    private var sources: [(source: AdapterSource, version: Int)] = []
    /// The threads that read them.
    private let readers: OperationQueue

    private enum State { case running, draining, stopped }

    private init(_ settings: EngineSettings, _ tokenizer: Tokenizer) {
        (self.settings, shared) = (settings, SharedTokenizer(tokenizer))
        readers = OperationQueue()
        readers.maxConcurrentOperationCount = 4
    }

    /// Starts the engine's thread and loads the model on it.
    ///
    /// - Parameter load: loads the model; called on the engine's thread.
    /// - Throws: what `load` throws.
    package static func start(
        _ settings: EngineSettings = EngineSettings(), tokenizer: Tokenizer,
        load: @escaping @Sendable () throws -> any LanguageModel
    ) async throws -> Engine {
        let engine = Engine(settings, tokenizer)
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            let thread = Thread {
                let loop: EngineLoop
                do {
                    loop = try EngineLoop(load(), engine)
                    engine.model = try loop.facts()
                } catch { return continuation.resume(throwing: error) }
                continuation.resume()
                engine.run(loop)
            }
            thread.name = "peft-engine"
            thread.stackSize = 16 << 20
            thread.start()
        }
        return engine
    }

    // MARK: Requests

    /// Submits a request.
    ///
    /// - Returns: its events. Ending the iteration cancels the request.
    /// - Throws: ``ServingError`` if it is invalid, can never run, or the queue is full.
    package func submit(_ request: GenerationRequest) throws -> AsyncStream<GenerationEvent> {
        let (settings, most, least) = try checked(request)
        let constraint = try constraint(of: request, settings)
        let (stream, continuation) = AsyncStream<GenerationEvent>.makeStream()
        condition.lock()
        defer { condition.unlock() }
        try requireAccepting(adapter: request.adapter)
        let id = nextID
        nextID += 1
        let job = Job(id: id, request, settings, constraint, most: most, least: least, continuation)
        continuation.onTermination = { [weak self] reason in
            if case .cancelled = reason { self?.cancel(id) }
        }
        queue.append(job, client: request.client, key: request.adapter ?? "")
        condition.signal()
        return stream
    }

    /// Computes scores of labels or embeddings.
    ///
    /// - Returns: the outputs of each text: scores before softmax or sigmoid, for token classification those of each labeled
    ///   token after another, or an embedding. Cancelling the task cancels the request.
    /// - Throws: ``ServingError`` if the request is invalid or fails, or the queue is full; `CancellationError`.
    package func encode(_ request: EncodingRequest) async throws -> [[Float]] {
        guard !model.head.task.generates else {
            throw ServingError(.invalid, "the model generates text and has no other outputs", parameter: "model")
        }
        for row in request.rows {
            try requireTokens(row.input, limit: model.vocabularySize, parameter: "input")
            guard row.input.count <= model.contextLength else { throw tooLong(row.input.count, parameter: "input") }
        }
        guard !request.rows.isEmpty else { return [] }
        let id = condition.withLock {
            defer { nextID += 1 }
            return nextID
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let job = EncodingJob(id: id, request, continuation)
                condition.lock()
                defer { condition.unlock() }
                do {
                    try requireAccepting(adapter: request.adapter)
                    guard !Task.isCancelled else { throw CancellationError() }
                    encodings.append(job, client: request.client, key: request.adapter ?? "")
                    condition.signal()
                } catch { job.end(.failure(error)) }
            }
        } onCancel: {
            cancel(id)
        }
    }

    /// - Throws: ``ServingError`` for an adapter that is unknown or doesn't fit, and while there is no room in the queue. Called
    ///   with the lock held.
    private func requireAccepting(adapter: String?) throws {
        guard state == .running else { throw ServingError(.shuttingDown, "the server is shutting down") }
        if let name = adapter {
            guard let status = published.adapters.first(where: { $0.name == name }) else { throw unknownModel(name) }
            if let problem = status.problem { throw ServingError(.adapter, problem, parameter: "model") }
        }
        let waiting = queue.count + encodings.count
        guard waiting < settings.maxWaiting else {
            rejected += 1
            throw ServingError(.busy(retryAfter: retryTime()), "\(waiting) requests are waiting; try again later")
        }
        if let status = published.adapters.first(where: { $0.name == adapter }), status.state == .unloaded,
            !status.isRead
        {
            read(status.name, status.folder, version: status.version)
        }
    }

    private func requireTokens(_ ids: [Int], limit: Int, parameter: String = "prompt") throws {
        guard !ids.isEmpty else { throw ServingError(.invalid, "the \(parameter) is empty", parameter: parameter) }
        guard let id = ids.first(where: { !(0..<limit).contains($0) }) else { return }
        throw ServingError(
            .invalid, "token id \(id) is outside the vocabulary of \(limit) tokens", parameter: parameter)
    }

    private func tooLong(_ length: Int, parameter: String = "prompt") -> ServingError {
        let isWithAnswer = model.head.task.generates && !model.isEncoderDecoder
        return ServingError(
            .tooLong,
            "the \(parameter) has \(length) tokens, but the context has \(model.contextLength)\(isWithAnswer ? ", the answer included" : ""); shorten it",
            parameter: parameter)
    }

    /// Number of tokens of a request's vocabulary. That of an adapter with a tokenizer of its own may be larger than the base's.
    private func vocabularySize(_ request: GenerationRequest) -> Int {
        max(model.vocabularySize, request.tokenizer?.tokenizer.vocabularySize ?? 0)
    }

    /// Checks a request against the model and resolves its settings.
    private func checked(_ request: GenerationRequest) throws -> (GenerationSettings, most: Int, least: Int) {
        guard model.head.task.generates else {
            throw ServingError(
                .invalid,
                "the model is for \(model.head.task.rawValue) and generates no text; use /classify or /v1/embeddings",
                parameter: "model")
        }
        let vocabulary = vocabularySize(request)
        try requireTokens(request.prompt, limit: vocabulary)
        guard (1...128).contains(request.choices) else {
            throw ServingError(.invalid, "n is \(request.choices); use a value from 1 to 128", parameter: "n")
        }
        if let token = request.bias.logitBias.keys.first(where: { !(0..<vocabulary).contains($0) }) {
            throw ServingError(
                .invalid, "logit_bias names token \(token), which is outside the vocabulary", parameter: "logit_bias")
        }
        var parameters = request.parameters
        var settings: GenerationSettings
        do {
            settings = try GenerationSettings(parameters, defaults: model.defaults, source: model.generation)
            if parameters.temperature == nil, settings.temperature == 0, request.samplesByDefault {
                // Unless the model's file says otherwise.
                parameters.temperature = 1
                settings = try GenerationSettings(parameters, defaults: model.defaults, source: model.generation)
            }
        } catch { throw ServingError(.invalid, error) }
        let length = request.prompt.count
        let begun = model.isEncoderDecoder ? 1 : length
        let room = model.room(after: length)
        guard length <= model.contextLength, room > 0 else { throw tooLong(length) }
        let most: Int
        if let own = parameters.maxNewTokens {
            guard own <= room else {
                throw ServingError(
                    .tooLong,
                    "the prompt has \(length) tokens and max_tokens is \(own), but the context has \(model.contextLength) tokens; reduce one of them",
                    parameter: "max_tokens")
            }
            most = own
        } else {
            most = min(room, self.settings.defaultNewTokens ?? room)
        }
        let needed = request.choices * ((length + most) * model.bytesPerToken + model.bytesPerSequence)
        guard needed <= self.settings.cacheBytes else {
            throw ServingError(
                .tooLong,
                "\(request.choices) × \(length + most) tokens need \(needed) bytes of KV memory, but the server has \(self.settings.cacheBytes); reduce max_tokens or n",
                parameter: "max_tokens")
        }
        return (settings, most, settings.minNewTokens(after: begun))
    }

    private func constraint(of request: GenerationRequest, _ settings: GenerationSettings) throws -> JSONConstraint? {
        guard let format = request.responseFormat else { return nil }
        guard !request.ignoresEndTokens else {
            throw ServingError(
                .invalid, "JSON ends with an end token; leave out ignore_eos or response_format",
                parameter: "ignore_eos")
        }
        let ends = settings.endTokens.union(request.stopTokens)
        do {
            return try constraints.constraint(
                format, request.tokenizer ?? shared, size: vocabularySize(request), endTokens: ends)
        } catch { throw ServingError(.invalid, error, parameter: "response_format") }
    }

    /// Seconds until the queue probably has room. Called with the lock held.
    private func retryTime() -> Int {
        let latency = published.statistics.requestLatency
        let average = latency.total > 0 ? latency.sum / Double(latency.total) : 1
        let waiting = Double(queue.count + encodings.count)
        return min(60, max(1, Int((average * waiting / Double(settings.maxRunning)).rounded(.up))))
    }

    private func unknownModel(_ name: String) -> ServingError {
        let hint = nearestName(to: name, in: published.adapters.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
        return ServingError(.unknownModel, "the model '\(name)' does not exist\(hint)", parameter: "model")
    }

    private func cancel(_ id: Int) {
        condition.lock()
        cancelled.insert(id)
        condition.signal()
        condition.unlock()
    }

    // MARK: Adapters

    /// Adds an adapter, or replaces one; its running requests continue with the old one.
    /// - Throws: ``ServingError`` if the name is taken, or it doesn't fit the model or the memory.
    package func loadAdapter(_ name: String, from folder: URL, isPinned: Bool = false, replaces: Bool = false)
        async throws
    {
        let source = await read(folder) { [settings] in $0 <= settings.adapterBytes }
        try await perform { loop in
            try loop.store.add(name, source, isPinned: isPinned, replaces: replaces)
        }
    }

    /// Adds or replaces an adapter of a watched folder. If it doesn't fit, its status says why.
    package func registerAdapter(_ name: String, from folder: URL) async throws {
        // Without room it isn't loaded yet.
        let source = await read(folder) { [self] in statistics.adapterBytes + $0 <= settings.adapterBytes }
        try await perform { $0.store.register(name, source) }
    }

    /// Reads an adapter's folder on another thread than the engine's, which goes on meanwhile.
    private func read(_ folder: URL, readsTensors: @escaping @Sendable (Int) -> Bool) async -> AdapterSource {
        await withCheckedContinuation { continuation in
            readers.addOperation {
                continuation.resume(returning: AdapterSource(folder, readsTensors: readsTensors))
            }
        }
    }

    /// Reads an adapter's folder for requests that wait. Called with the lock held.
    private func read(_ name: String, _ folder: URL, version: Int) {
        guard reading[version] == nil else { return }
        reading[version] = name
        readers.addOperation { [weak self, settings] in
            settings.beforeReading?(name)
            let source = AdapterSource(folder) { $0 <= settings.adapterBytes }
            guard let self else { return }
            condition.withLock {
                sources.append((source, version))
                condition.signal()
            }
        }
    }

    /// Forgets an adapter; its running requests continue.
    /// - Throws: ``ServingError`` for an unknown name.
    package func unloadAdapter(_ name: String) async throws { try await perform { try $0.store.remove(name) } }

    /// All adapters, by name.
    package var adapters: [AdapterStatus] {
        condition.lock()
        defer { condition.unlock() }
        return published.adapters
    }

    /// Names of the adapters of requests that wait, in order.
    package var waitingAdapters: [String] {
        condition.withLock { queue.keys.union(encodings.keys).subtracting([""]).sorted() }
    }

    package var statistics: EngineStatistics {
        condition.lock()
        defer { condition.unlock() }
        var statistics = published.statistics
        (statistics.waiting, statistics.rejected) = (queue.count + encodings.count, rejected)
        return statistics
    }

    /// Runs an action on the engine's thread, between steps.
    private func perform(_ action: @escaping @Sendable (EngineLoop) throws -> Void) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            condition.lock()
            guard state != .stopped else {
                condition.unlock()
                return continuation.resume(throwing: ServingError(.shuttingDown, "the server is shutting down"))
            }
            commands.append { loop in
                let result = Result { try action(loop) }
                self.publish(loop)
                continuation.resume(with: result)
            }
            condition.signal()
            condition.unlock()
        }
    }

    // MARK: Life cycle

    /// Whether new requests are accepted.
    package var isAccepting: Bool {
        condition.lock()
        defer { condition.unlock() }
        return state == .running
    }

    /// Accepts no further requests; those submitted are completed.
    package func drain() {
        condition.lock()
        if state == .running { state = .draining }
        condition.unlock()
    }

    /// Ends the engine's thread; requests that are not complete fail.
    package func stop() {
        condition.lock()
        state = .stopped
        condition.signal()
        condition.unlock()
    }

    // MARK: The engine's thread

    private func run(_ loop: EngineLoop) {
        publish(loop)
        while true {
            condition.lock()
            while state != .stopped, commands.isEmpty, cancelled.isEmpty, sources.isEmpty, loop.isIdle, !canStart {
                guard !queue.isEmpty || !encodings.isEmpty else {
                    condition.wait()
                    continue
                }
                // Requests whose adapters are read may be late meanwhile.
                guard condition.wait(until: Date(timeIntervalSinceNow: 0.1)) else { break }
            }
            let (tasks, left, isStopped) = (commands, cancelled, state == .stopped)
            let arrived = sources
            (commands, cancelled, sources) = ([], [], [])
            let versions = Set(arrived.map(\.version))
            var skipped = Set(reading.filter { !versions.contains($0.key) }.values)
            let now = ContinuousClock.now
            let abandoned = queue.remove { left.contains($0.id) }
            let late = queue.remove { ($0.request.deadline ?? now) < now }
            let unstarted = isStopped ? queue.remove { _ in true } : []
            let leftEncodings = encodings.remove { left.contains($0.id) }
            let lateEncodings = encodings.remove { ($0.request.deadline ?? now) < now }
            let unstartedEncodings = isStopped ? encodings.remove { _ in true } : []
            condition.unlock()
            for task in tasks { task(loop) }
            if !tasks.isEmpty { loop.removeUnknownPrefixes() }
            for job in leftEncodings { loop.encodings.end(job, CancellationError()) }
            for job in lateEncodings { loop.encodings.end(job, loop.late) }
            for job in abandoned { loop.end(job, nil) }
            for job in late { loop.end(job, loop.late) }
            let stopping = ServingError(.shuttingDown, "the server is shutting down")
            if isStopped {
                for job in unstarted { loop.end(job, stopping) }
                for job in unstartedEncodings { loop.encodings.end(job, stopping) }
                loop.failAll(stopping)
                return publish(loop)
            }
            loop.removeEnded(cancelled: left)
            for (source, version) in arrived { loop.store.put(source, version: version) }
            start(\.queue, &skipped, while: { loop.hasRoom }, loop.start)
            start(\.encodings, &skipped, while: { loop.hasEncodingRoom }, loop.encodings.start)
            loop.step()
            publish(loop)
            condition.withLock { for version in versions { reading[version] = nil } }
            settings.afterStep?(loop.currentStatistics)
        }
    }

    /// Whether a request waits whose adapter isn't being read. Called with the lock held.
    private var canStart: Bool {
        let names = Set(reading.values)
        return queue.next(skipping: names) != nil || encodings.next(skipping: names) != nil
    }

    /// Starts the requests of a queue whose turn it is.
    /// - Parameter skipped: names of the adapters that are being read.
    private func start<Element>(
        _ queue: ReferenceWritableKeyPath<Engine, ClientQueue<Element>>, _ skipped: inout Set<String>,
        while hasRoom: () -> Bool, _ start: (Element) -> Turn
    ) {
        while hasRoom(), let next = condition.withLock({ self[keyPath: queue].next(skipping: skipped) }) {
            switch start(next.element) {
            case .waits: return
            case .reads(let folder, let version):
                // The key of a request is its adapter.
                skipped.insert(next.key)
                condition.withLock { read(next.key, folder, version: version) }
            case .taken:
                // The queue may have grown, but nothing else takes its elements.
                condition.withLock { _ = self[keyPath: queue].pop(client: next.client, key: next.key) }
            }
        }
    }

    private func publish(_ loop: EngineLoop) {
        let (statistics, adapters) = (loop.currentStatistics, loop.store.statuses)
        condition.lock()
        published = (statistics, adapters)
        condition.unlock()
    }
}
