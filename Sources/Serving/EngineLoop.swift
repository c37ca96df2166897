import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch

/// The running batch of an ``Engine``. Belongs to the engine's thread.
final class EngineLoop {
    let store: AdapterStore
    private let model: any LanguageModel
    private let batch: SequenceBatch
    private let settings: EngineSettings
    private let tokenizer: Tokenizer
    private var running: [Choice] = []
    private var reservedBytes = 0
    private var statistics = EngineStatistics()
    private let bytesPerToken: Int
    let late = ServingError(.deadline, "the request was not complete within its time limit")

    init(_ model: any LanguageModel, _ engine: Engine) throws {
        (self.model, settings, tokenizer) = (model, engine.settings, engine.tokenizer)
        batch = try SequenceBatch(model)
        bytesPerToken = batch.bytesPerToken
        store = AdapterStore(model, limit: engine.settings.adapterBytes)
    }

    func facts() throws -> Engine.ModelFacts {
        var facts = Engine.ModelFacts()
        facts.family = model.family
        facts.vocabularySize = min(model.vocabularySize, max(tokenizer.vocabularySize, model.vocabularySize))
        let configured = ["max_position_embeddings", "n_positions", "n_ctx"].lazy.compactMap {
            self.model.configuration[$0]?.int
        }.first
        let own = batch.positionLimit ?? configured ?? 4096
        facts.contextLength = min(settings.contextLength ?? own, batch.positionLimit ?? .max)
        facts.bytesPerToken = bytesPerToken
        facts.isEncoderDecoder = batch.startToken != nil
        facts.defaults = model.generationDefaults
        facts.generation = model.folderSettings.generation
        guard facts.contextLength > 1 else {
            throw PEFTError("the context length is \(facts.contextLength)", remedy: "use 2 or more")
        }
        // Errors in the model's own settings come at the start.
        _ = try GenerationSettings(GenerateParameters(), defaults: facts.defaults, source: facts.generation)
        return facts
    }

    var isIdle: Bool { running.isEmpty }
    var hasRoom: Bool { running.count < settings.maxRunning }

    var currentStatistics: EngineStatistics {
        statistics.running = running.count
        (statistics.cacheBytes, statistics.cacheLimit) = (reservedBytes, settings.cacheBytes)
        (statistics.adapterBytes, statistics.adapterLimit) = (store.bytes, settings.adapterBytes)
        (statistics.adapterLoads, statistics.adapterEvictions) = (store.loads, store.evictions)
        return statistics
    }

    // MARK: Joining

    /// Adds a request's sequences to the batch.
    /// - Returns: `false` if it has to wait for others to end.
    func start(_ job: Job) -> Bool {
        let request = job.request
        do {
            guard isIdle || running.count + request.choices <= settings.maxRunning else { return false }
            var adapter: LoadedAdapter?
            if let name = request.adapter {
                guard case .ready(let loaded) = try store.use(name) else { return false }
                adapter = loaded
            }
            let virtual = adapter?.virtualTokens ?? 0
            let prompt = request.prompt
            var most = job.most
            if let limit = batch.positionLimit {
                // The last new token isn't fed back.
                most = min(most, limit - virtual - prompt.count + 1)
                guard most > 0 else {
                    throw ServingError(
                        .tooLong,
                        "the prompt has \(prompt.count) tokens and the adapter \(virtual) virtual ones, but the model has \(limit) positions; shorten it",
                        parameter: "prompt")
                }
            }
            let bytes = (prompt.count + most + virtual) * bytesPerToken
            guard isIdle || reservedBytes + bytes * request.choices <= settings.cacheBytes else { return false }
            let ends = request.ignoresEndTokens ? [] : job.settings.endTokens
            let isEncoded = batch.startToken != nil
            let choices = try (0..<request.choices).map { index in
                try Choice(
                    job, index: index, adapter,
                    sequence: CachedSequence(
                        source: isEncoded ? prompt : [], capacity: isEncoded ? most : prompt.count + most),
                    pending: isEncoded ? [job.settings.startToken ?? 0] : prompt, most: most, bytes: bytes,
                    endTokens: ends.union(request.stopTokens), tokenizer)
            }
            for choice in choices {
                choice.waitsForCopy = choice.index > 0 && batch.isShared
                running.append(choice)
                reservedBytes += bytes
                adapter?.running += 1
            }
            job.open = request.choices
            if let name = request.adapter { store.countRequest(name) }
            statistics.promptTokens += prompt.count
            statistics.queueTime.record(job.submitted.duration(to: .now).inSeconds)
        } catch {
            end(job, ServingError(.failed, error))
        }
        return true
    }

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
        remove { failed.contains($0.job.id) }
    }

    func failAll(_ error: ServingError) { fail(running, error) }

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

    private func remove(where condition: (Choice) -> Bool) {
        for choice in running where condition(choice) {
            reservedBytes -= choice.bytes
            if let adapter = choice.adapter { store.release(adapter) }
        }
        running.removeAll(where: condition)
    }

    // MARK: Steps

    /// One step of every sequence that can go on.
    func step() {
        for group in groups() { step(group) }
    }

    /// Sequences that share a step: all whose adapters can, else those of one adapter.
    private func groups() -> [[Choice]] {
        let ready = running.filter { !$0.waitsForCopy }
        guard batch.isShared else { return ready.map { [$0] } }
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

    private func step(_ group: [Choice]) {
        // Decoding sequences go on; the first prompts fill the rest of the step.
        var room = batch.isShared ? settings.prefillChunk : .max
        var parts: [Part] = []
        for choice in group {
            let count = choice.isDecoding ? choice.pending.count : min(choice.pending.count, room)
            guard count > 0 else { continue }
            if !choice.isDecoding { room -= count }
            parts.append(Part(choice: choice, count: count))
        }
        // Sequences of one adapter are neighbors, so that its projections are computed together.
        parts.sort { $0.order < $1.order }
        guard !parts.isEmpty else { return }
        do {
            let inputs = parts.map { part in
                SequenceBatch.Input(
                    part.choice.sequence, tokens: Array(part.choice.pending.prefix(part.count)),
                    readsLogits: part.count == part.choice.pending.count)
            }
            let logits: Tensor?
            if let adapter = parts[0].choice.adapter, adapter.isExclusive {
                logits = try store.running(exclusively: adapter.key) { try batch.step(inputs) }
            } else {
                logits = try store.batch.run(parts.map { $0.choice.adapter?.key }) { try batch.step(inputs) }
            }
            for part in parts { part.choice.pending.removeFirst(part.count) }
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
            return TokenLogProbability(chosen: entry(chosen), best: best.map(entry))
        }
        record(choice)
        return try choice.accept(token, logProbability: scores)
    }

    /// The other choices of requests whose prompt has just been read continue from copies of its cache.
    private func copies(of choices: [Choice]) throws -> [(choice: Choice, row: Int)] {
        var result: [(choice: Choice, row: Int)] = []
        for (row, choice) in choices.enumerated() where choice.index == 0 && !choice.isDecoding {
            for other in running where other.job === choice.job && other.waitsForCopy {
                guard let copy = try batch.copy(of: choice.sequence) else { continue }
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

    private func entry(_ score: TokenChooser.Score) -> TokenLogProbability.Entry {
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
                .done(Usage(promptTokens: job.request.prompt.count, completionTokens: job.completionTokens)))
        }
        remove { ended.contains(ObjectIdentifier($0)) }
    }
}
