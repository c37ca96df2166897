import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch

/// What becomes of a request whose turn it is.
enum Turn {
    /// It has started, or failed.
    case taken
    /// It waits for others to end.
    case waits
    /// It waits for its adapter's folder to be read.
    case reads(URL, version: Int)
}

/// The running batch of an ``Engine``. Belongs to the engine's thread.
final class EngineLoop {
    let store: AdapterStore
    private let model: any LanguageModel
    /// `nil` for a model that doesn't generate text.
    private let batch: SequenceBatch?
    let encodings: EncodingBatch
    private let prefixes = PrefixCache()
    private let settings: EngineSettings
    private let tokenizer: Tokenizer
    private var running: [Choice] = []
    private var reservedBytes = 0
    private var statistics = EngineStatistics()
    private let bytesPerToken, bytesPerSequence: Int
    let late = ServingError(.deadline, "the request was not complete within its time limit")

    init(_ model: any LanguageModel, _ engine: Engine) throws {
        (self.model, settings, tokenizer) = (model, engine.settings, engine.tokenizer)
        batch = model.generates ? try SequenceBatch(model) : nil
        bytesPerToken = batch?.bytesPerToken ?? 0
        bytesPerSequence = batch?.bytesPerSequence ?? 0
        let keepsPrefixes = engine.settings.keepsPrefixes && batch?.sharesPrefixes ?? false
        store = AdapterStore(
            model, limit: engine.settings.adapterBytes, virtualTokenBytes: keepsPrefixes ? bytesPerToken : 0)
        encodings = EncodingBatch(model, store, limit: engine.settings.encodingBatch)
        encodings.onEnd = { [unowned self] reason in statistics.finished[reason, default: 0] += 1 }
    }

    func facts() throws -> Engine.ModelFacts {
        var facts = Engine.ModelFacts()
        facts.family = model.family
        facts.vocabularySize = model.vocabularySize
        let configured = ["max_position_embeddings", "n_positions", "n_ctx"].lazy.compactMap {
            self.model.configuration[$0]?.int
        }.first
        let limit = batch == nil ? model.positionLimit : batch?.positionLimit
        let own = limit ?? configured ?? 4096
        facts.contextLength = min(settings.contextLength ?? own, limit ?? .max)
        facts.bytesPerToken = bytesPerToken
        facts.bytesPerSequence = bytesPerSequence
        facts.isEncoderDecoder = isEncoderDecoder
        facts.head = model.head
        facts.hasSegments = model.modelFamily.tokenTypes.areSeveral(in: model.configuration)
        facts.defaults = model.generationDefaults
        facts.generation = model.folderSettings.generation
        guard facts.contextLength > 1 else {
            throw PEFTError("the context length is \(facts.contextLength)", remedy: "use 2 or more")
        }
        // Errors in the model's own settings come at the start.
        _ = try GenerationSettings(GenerateParameters(), defaults: facts.defaults, source: facts.generation)
        return facts
    }

    var isIdle: Bool { running.isEmpty && encodings.isIdle }
    var hasRoom: Bool { running.count < settings.maxRunning }
    var hasEncodingRoom: Bool { encodings.count < settings.maxRunning }

    var currentStatistics: EngineStatistics {
        statistics.running = running.count + encodings.count
        statistics.prefixBytes = prefixes.bytes
        (statistics.cacheBytes, statistics.cacheLimit) = (reservedBytes, settings.cacheBytes)
        (statistics.adapterBytes, statistics.adapterLimit) = (store.bytes, settings.adapterBytes)
        (statistics.adapterLoads, statistics.adapterEvictions) = (store.loads, store.evictions)
        return statistics
    }

    // MARK: Joining

    /// Adds a request's sequences to the batch.
    func start(_ job: Job) -> Turn {
        let request = job.request
        do {
            guard let batch else { throw ServingError(.invalid, "the model generates no text") }
            guard running.isEmpty || running.count + request.choices <= settings.maxRunning else { return .waits }
            var adapter: LoadedAdapter?
            if let name = request.adapter {
                switch try store.use(name) {
                case .ready(let loaded): adapter = loaded
                case .wait: return .waits
                case .read(let folder, let version): return .reads(folder, version: version)
                }
            }
            let virtual = adapter?.virtualTokens ?? 0
            let prompt = request.prompt
            try requireKnown(prompt, adapter, batch)
            let isEncoded = isEncoderDecoder
            var most = job.most
            if let limit = batch.positionLimit {
                // The last new token isn't fed back.
                most = min(most, limit - virtual - (isEncoded ? 1 : prompt.count) + 1)
                guard most > 0 else {
                    throw ServingError(
                        .tooLong,
                        "the prompt has \(prompt.count) tokens and the adapter \(virtual) virtual ones, but the model has \(limit) positions; shorten it",
                        parameter: "prompt")
                }
            }
            let bytes = (prompt.count + most + virtual) * bytesPerToken + bytesPerSequence
            let reserved = reservedBytes + bytes * request.choices
            guard running.isEmpty || reserved <= settings.cacheBytes else { return .waits }
            let ends = request.ignoresEndTokens ? [] : job.settings.endTokens
            let capacity = isEncoded ? most : prompt.count + most
            let known = knownPrefix(of: prompt, adapter)
            prefixes.makeRoom(for: reserved, limit: settings.cacheBytes)
            let choices = try (0..<request.choices).map { index in
                let isFirst = index == 0 || !batch.isShared
                let copy =
                    try isFirst
                    ? known.flatMap { try batch.prefix(of: $0.sequence, length: $0.length, capacity: capacity) }
                        ?? adapter?.virtualPrefix.flatMap { try batch.prefix(of: $0, length: 0, capacity: capacity) }
                    : nil
                if let copy { job.cachedTokens = copy.length }
                return try Choice(
                    job, index: index, adapter,
                    sequence: copy ?? CachedSequence(source: isEncoded ? prompt : [], capacity: capacity),
                    pending: isEncoded ? [job.settings.startToken ?? 0] : Array(prompt.dropFirst(copy?.length ?? 0)),
                    most: most, bytes: bytes, endTokens: ends.union(request.stopTokens),
                    request.tokenizer?.tokenizer ?? tokenizer)
            }
            for choice in choices {
                choice.waitsForCopy = choice.index > 0 && batch.isShared
                running.append(choice)
                reservedBytes += bytes
                adapter?.running += 1
            }
            job.open = request.choices
            if let name = request.adapter { store.countRequest(name) }
            request.onTokens?(prompt.count)
            statistics.promptTokens += prompt.count
            statistics.prefixHits += job.cachedTokens
            if keepsPrefixes { statistics.prefixQueries += prompt.count }
            statistics.queueTime.record(job.submitted.duration(to: .now).inSeconds)
        } catch {
            end(job, ServingError(.failed, error))
        }
        return .taken
    }

    /// Checks tokens that only an adapter's own tokenizer has: in a step, they would end the sequences of others, too.
    private func requireKnown(_ prompt: [Int], _ adapter: LoadedAdapter?, _ batch: SequenceBatch) throws {
        guard let adapter, prompt.contains(where: { $0 >= model.vocabularySize }) else { return }
        do {
            guard adapter.isExclusive else { return try batch.requireKnown(prompt) }
            try store.running(exclusively: adapter.key) { try batch.requireKnown(prompt) }
        } catch { throw ServingError(.invalid, error, parameter: "prompt") }
    }

    // MARK: Prefixes

    private var keepsPrefixes: Bool { settings.keepsPrefixes && batch?.sharesPrefixes ?? false }

    /// The sequence, running or ended, that shares most of a prompt's beginning. The last token is always processed, for
    /// its logits.
    private func knownPrefix(of prompt: [Int], _ adapter: LoadedAdapter?) -> (sequence: CachedSequence, length: Int)?
    {
        guard keepsPrefixes, prompt.count > PrefixCache.shortest else { return nil }
        let owner = adapter?.prefixes.owner(of: prompt) ?? .base
        let wanted = Array(prompt.dropLast())
        var best = prefixes.longest(wanted, owner)
        for choice in running where choice.index == 0 {
            let common = PrefixCache.commonLength(wanted, choice.job.request.prompt)
            let length = min(choice.sequence.length, owner.shared(common, with: choice.prefixOwner))
            if length >= PrefixCache.shortest, length > best?.length ?? 0 { best = (choice.sequence, length) }
        }
        return best
    }

    /// Keeps what a sequence that ends has computed.
    private func keepPrefix(_ choice: Choice) throws {
        guard keepsPrefixes, choice.index == 0, choice.sequence.length >= PrefixCache.shortest else { return }
        var sequence = choice.sequence
        let virtual = sequence.columns - sequence.length
        // Much of the reserved memory may be unused.
        if 4 * sequence.length < 3 * sequence.capacity,
            let copy = try batch?.prefix(
                of: sequence, length: sequence.length, capacity: sequence.length)
        {
            sequence = copy
        }
        prefixes.insert(
            sequence, choice.prefixOwner, tokens: choice.readTokens,
            bytes: (virtual + max(sequence.capacity, sequence.length)) * bytesPerToken + bytesPerSequence)
    }

    /// Keeps keys and values of the virtual tokens that a step has computed.
    private func keepVirtualTokens(_ choice: Choice) throws {
        guard keepsPrefixes, let adapter = choice.adapter, adapter.virtualTokens > 0, adapter.virtualPrefix == nil
        else {
            return
        }
        adapter.virtualPrefix = try batch?.prefix(of: choice.sequence, length: 0, capacity: 1)
    }

    /// Forgets prefixes of adapters that are gone.
    func removeUnknownPrefixes() { prefixes.keep { store.isKnown($0) } }

    // MARK: Leaving

    /// Removes the sequences of clients that left and those whose time is over.
    func removeEnded(cancelled: Set<Int>) {
        let now = ContinuousClock.now
        var failed: Set<Int> = []
        for choice in running where !failed.contains(choice.job.id) {
            if cancelled.contains(choice.job.id) {
                failed.insert(choice.job.id)
                end(choice.job, nil)
            } else if let deadline = choice.job.request.deadline, deadline < now {
                failed.insert(choice.job.id)
                end(choice.job, late)
            }
        }
        remove(keepsPrefixes: true) { failed.contains($0.job.id) }
        encodings.end { job in
            if cancelled.contains(job.id) { return CancellationError() }
            return job.request.deadline.map { $0 < now } ?? false ? late : nil
        }
    }

    func failAll(_ error: ServingError) {
        fail(running, error)
        encodings.end { _ in error }
    }

    /// Ends a request that is not complete; `nil` if its client left.
    func end(_ job: Job, _ error: ServingError?) {
        statistics.finished[error == nil ? "abort" : "error", default: 0] += 1
        if let error { job.end(.failed(error)) } else { job.abandon() }
    }

    private func fail(_ choices: [Choice], _ error: ServingError) {
        var failed: Set<Int> = []
        for choice in choices where failed.insert(choice.job.id).inserted { end(choice.job, error) }
        remove { failed.contains($0.job.id) }
    }

    private func remove(keepsPrefixes: Bool = false, where condition: (Choice) -> Bool) {
        for choice in running where condition(choice) {
            reservedBytes -= choice.bytes
            // A prefix that can't be kept is read again.
            if keepsPrefixes { try? keepPrefix(choice) }
            if let adapter = choice.adapter { store.release(adapter) }
        }
        running.removeAll(where: condition)
        prefixes.makeRoom(for: reservedBytes, limit: settings.cacheBytes)
    }

    // MARK: Steps

    /// One step of every sequence that can go on.
    func step() {
        for group in groups() { step(group) }
        let (tokens, complete) = encodings.step()
        guard tokens > 0 else { return }
        statistics.steps += 1
        statistics.promptTokens += tokens
        statistics.tokensPerStep.record(Double(tokens))
        for job in complete {
            statistics.requestLatency.record(job.submitted.duration(to: .now).inSeconds)
        }
    }

    /// Sequences that share a step: all whose adapters can, else those of one adapter.
    private func groups() -> [[Choice]] {
        let ready = running.filter { !$0.waitsForCopy }
        guard batch?.isShared ?? false else { return ready.map { [$0] } }
        var keys: [String] = []
        var groups: [String: [Choice]] = [:]
        for choice in ready {
            let key = choice.adapter.flatMap { $0.isExclusive ? $0.key : nil } ?? ""
            if groups[key] == nil { keys.append(key) }
            groups[key, default: []].append(choice)
        }
        return keys.compactMap { groups[$0] }
    }

    /// The tokens of one sequence in a step.
    private struct Part {
        let choice: Choice
        let count: Int

        var order: (String, Int, Int) { (choice.adapter?.key ?? "", choice.job.id, choice.index) }
    }

    private var isEncoderDecoder: Bool { batch?.startToken != nil }

    /// Runs `body` with the adapters of sequences, which are all of one exclusive adapter or can share a step.
    private func withAdapters<Result>(of choices: [Choice], _ body: () throws -> Result) throws -> Result {
        if let adapter = choices[0].adapter, adapter.isExclusive {
            return try store.running(exclusively: adapter.key, body)
        }
        return try store.batch.run(choices.map { $0.adapter?.key }, body)
    }

    /// Reads the prompt of an encoder-decoder's new sequence, whose failure is no other's.
    /// - Returns: `false` if it failed.
    private func read(_ choice: Choice) -> Bool {
        guard isEncoderDecoder else { return true }
        do { try withAdapters(of: [choice]) { try batch?.start([choice.sequence]) } } catch {
            fail([choice], ServingError(.failed, error))
            return false
        }
        return true
    }

    private func step(_ group: [Choice]) {
        guard let batch else { return }
        // Decoding sequences go on; the first prompts fill the rest of the step.
        var room = batch.isShared ? settings.prefillChunk : .max
        var parts: [Part] = []
        for choice in group {
            var count = choice.pending.count
            if !choice.isDecoding {
                guard room > 0, read(choice) else { continue }
                // An encoder reads a prompt at once.
                if !isEncoderDecoder { count = min(count, room) }
                room -= isEncoderDecoder ? choice.job.request.prompt.count : count
            }
            guard count > 0 else { continue }
            parts.append(Part(choice: choice, count: count))
        }
        // Sequences of one adapter are neighbors, so that its projections are computed together.
        parts.sort { $0.order < $1.order }
        guard !parts.isEmpty else { return }
        do {
            let inputs = parts.map { part in
                SequenceBatch.Input(
                    part.choice.sequence, tokens: Array(part.choice.pending.prefix(part.count)),
                    readsLogits: part.count == part.choice.pending.count, prompt: part.choice.job.request.prompt)
            }
            let logits = try withAdapters(of: parts.map(\.choice)) { try batch.step(inputs) }
            for part in parts {
                part.choice.pending.removeFirst(part.count)
                try keepVirtualTokens(part.choice)
            }
            statistics.steps += 1
            statistics.tokensPerStep.record(Double(parts.reduce(0) { $0 + $1.count }))
            if let logits { try advance(parts.map(\.choice).filter { $0.pending.isEmpty }, logits) }
        } catch {
            fail(parts.map(\.choice), ServingError(.failed, error))
        }
    }

    /// Chooses the next token of each sequence from logits `[sequences, vocabulary]`.
    private func advance(_ choices: [Choice], _ logits: Tensor) throws {
        let finite: [Bool] = try withTorchErrors { try withoutGradients { try finiteRows(logits) } }
        var rows: [(choice: Choice, row: Int)] = choices.enumerated().map { ($1, $0) }
        rows += try copies(of: choices)
        let broken = rows.filter { !finite[$0.row] }.map { $0.choice }
        if !broken.isEmpty {
            fail(
                broken,
                ServingError(.failed, "the model's logits are NaN or infinite; check the adapter and the model"))
            let ids = Set(broken.map(\.job.id))
            rows.removeAll { ids.contains($0.choice.job.id) }
        }
        var ended: Set<ObjectIdentifier> = []
        var failed: [(choice: Choice, error: any Error)] = []
        try withTorchErrors {
            withoutGradients {
                let greedy =
                    rows.contains { $0.choice.chooser.isGreedy } ? logits.argmax(axis: -1).array(Int.self) : []
                for (choice, row) in rows {
                    // One sequence's failure is no other's.
                    do {
                        let own = logits.narrowed(axis: 0, row..<(row + 1))
                        let token =
                            choice.chooser.isGreedy && greedy.indices.contains(row)
                            ? greedy[row] : try choice.chooser.choose(own, generated: choice.generated)
                        if try advance(choice, token, own) { ended.insert(ObjectIdentifier(choice)) }
                    } catch { failed.append((choice, error)) }
                }
            }
        }
        for (choice, error) in failed where running.contains(where: { $0 === choice }) {
            fail([choice], ServingError(.failed, error))
        }
        finish(ended)
    }

    /// Adds a token to a sequence.
    /// - Returns: whether the sequence ends.
    private func advance(_ choice: Choice, _ token: Int, _ logits: Tensor) throws -> Bool {
        let scores = choice.job.request.logProbabilities.map { count in
            let (chosen, best) = TokenChooser.scores(logits, token: token, count: count)
            let tokenizer = choice.job.request.tokenizer?.tokenizer ?? tokenizer
            return TokenLogProbability(
                chosen: entry(chosen, tokenizer), best: best.map { entry($0, tokenizer) })
        }
        record(choice)
        return try choice.accept(token, logProbability: scores)
    }

    /// The other choices of requests whose prompt has just been read continue from copies of its cache.
    private func copies(of choices: [Choice]) throws -> [(choice: Choice, row: Int)] {
        var result: [(choice: Choice, row: Int)] = []
        for (row, choice) in choices.enumerated() where choice.index == 0 && !choice.isDecoding {
            for other in running where other.job === choice.job && other.waitsForCopy {
                guard let copy = try batch?.copy(of: choice.sequence) else { continue }
                other.sequence = copy
                other.pending = []
                other.waitsForCopy = false
                result.append((other, row))
            }
        }
        return result
    }

    private func finiteRows(_ logits: Tensor) throws -> [Bool] {
        let count = logits.dim(0)
        // The maximum is NaN if any value is.
        guard !logits.max().item().isFinite else { return Array(repeating: true, count: count) }
        return (0..<count).map { logits.narrowed(axis: 0, $0..<($0 + 1)).max().item().isFinite }
    }

    private func entry(_ score: TokenChooser.Score, _ tokenizer: Tokenizer) -> TokenLogProbability.Entry {
        var text = tokenizer.decode(tokens: [score.token], skipSpecialTokens: false)
        // Some decoders remove the space before the first word of a text.
        if tokenizer.token(for: score.token)?.hasPrefix("▁") ?? false, !text.hasPrefix(" ") { text = " " + text }
        return TokenLogProbability.Entry(token: score.token, text: text, logProbability: score.logProbability)
    }

    private func record(_ choice: Choice) {
        let now = ContinuousClock.now
        if let last = choice.lastToken { statistics.interTokenLatency.record(last.duration(to: now).inSeconds) }
        if !choice.job.hasFirstToken {
            choice.job.hasFirstToken = true
            statistics.timeToFirstToken.record(choice.job.submitted.duration(to: now).inSeconds)
        }
        choice.lastToken = now
        statistics.generationTokens += 1
    }

    /// Removes sequences that have ended; a request whose last one has is complete.
    private func finish(_ ended: Set<ObjectIdentifier>) {
        guard !ended.isEmpty else { return }
        for choice in running where ended.contains(ObjectIdentifier(choice)) {
            let job = choice.job
            statistics.finished[choice.reason.name, default: 0] += 1
            job.open -= 1
            guard job.open == 0 else { continue }
            statistics.requestLatency.record(job.submitted.duration(to: .now).inSeconds)
            job.end(
                .done(
                    Usage(
                        promptTokens: job.request.prompt.count, completionTokens: job.completionTokens,
                        cachedTokens: job.cachedTokens)))
        }
        remove(keepsPrefixes: true) { ended.contains(ObjectIdentifier($0)) }
    }
}
