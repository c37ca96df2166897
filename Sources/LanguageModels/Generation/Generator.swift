import PEFTSupport
import Torch
import TorchNN

/// Generates text for batches of prompts.
public struct Generator {
    /// The model, with its active adapters.
    package let model: any LanguageModel
    /// Settings resolved from the caller's parameters, the model's `generation_config.json` and the defaults.
    package let settings: GenerationSettings

    /// - Throws: ``PEFTError`` if a parameter, or a setting of the model, is out of range.
    public init(_ model: any LanguageModel, _ parameters: GenerateParameters) throws {
        (self.model, settings) = (model, try GenerationSettings(parameters, for: model))
    }

    /// Continues every prompt; results don't include the end token.
    ///
    /// - Parameters:
    ///   - prompts: token ids of each prompt.
    ///   - onToken: called with the prompt's index and each new token (not in beam search, whose tokens are only
    ///     known at the end); returning `false` stops that prompt.
    ///   - onLastPosition: called with the index of a prompt whose text ends because the model has no further
    ///     positions.
    /// - Throws: ``PEFTError`` for a prompt that the model can't process, and for NaN or infinite logits.
    public func generate(
        _ prompts: [[Int]], onToken: ((Int, Int) -> Bool)? = nil, onLastPosition: ((Int) -> Void)? = nil
    ) throws -> [[Int]] {
        try generate(prompts, constraint: nil, onToken: onToken, onLastPosition: onLastPosition)
    }

    /// Continues every prompt.
    /// - Parameters:
    ///   - constraint: restricts the tokens of each text, besides everything else that is excluded: if both leave no
    ///     token, the constraint alone counts.
    ///   - numbers: a number of each prompt, 0, 1, … by default. The draws of a text are a function of the seed, the
    ///     number and the position, so a text doesn't depend on the batch that its prompt is in.
    ///   - beginnings: how the text of each prompt begins, where it differs from the settings.
    package func generate(
        _ prompts: [[Int]], constraint: (any TokenConstraint)?, numbers: [Int]? = nil,
        beginnings: [TextBeginning]? = nil,
        onToken: ((Int, Int) -> Bool)? = nil, onLastPosition: ((Int) -> Void)? = nil
    ) throws -> [[Int]] {
        guard !prompts.isEmpty else { return [] }
        guard constraint == nil || settings.beams == 1 else {
            throw PEFTError("beam search can't be constrained to JSON", remedy: "use 1 beam")
        }
        if let empty = prompts.firstIndex(where: \.isEmpty) {
            throw PEFTError("prompt \(empty + 1) is empty", remedy: "use a nonempty prompt")
        }
        return try withTorchErrors {
            try withoutGradients {
                try model.computing {
                    let run = try start(prompts, beginnings)
                    let texts =
                        settings.beams > 1
                        ? try beamSearch(run, prompts)
                        : try continueEach(run, prompts, constraint, numbers ?? Array(prompts.indices), onToken)
                    if let onLastPosition {
                        for (index, text) in texts.enumerated()
                        where text.isCutShort && run.lengths[index].endsAtLastPosition {
                            onLastPosition(index)
                        }
                    }
                    return texts.map(\.tokens)
                }
            }
        }
    }

    /// The state of a generation before the first decode step.
    private struct Run {
        let state: any DecodingState
        /// The token that the first decode step feeds, for each sequence.
        let first: [Int]
        /// The initial tokens of each sequence.
        let before: [[Int]]
        let lengths: [Length]
        /// The token that each text is forced to begin with.
        let forced: [Int?]
    }

    /// The maximum number of new tokens of a sequence.
    private struct Length {
        let most: Int
        let least: Int
        /// Whether the model's positions end before the maximum number of tokens.
        let endsAtLastPosition: Bool
    }

    private struct Text {
        let tokens: [Int]
        /// Whether it stopped at its maximum length, without an end token.
        let isCutShort: Bool
    }

    private func start(_ prompts: [[Int]], _ beginnings: [TextBeginning]?) throws -> Run {
        guard model.generates else {
            throw PEFTError(
                "this \(model.family) model is an encoder and can't generate",
                remedy: "use peft evaluate or peft predict instead")
        }
        let read: [[Int]]
        let first: [Int]
        if let start = settings.startToken {
            (read, first) = (prompts, prompts.indices.map { beginnings?[$0].startToken ?? start })
        } else {
            // The prefill excludes the last token, which the first decode step feeds.
            (read, first) = (prompts.map { Array($0.dropLast()) }, prompts.compactMap(\.last))
        }
        let before = model.architecture == .decoder ? prompts : first.map { [$0] }
        let lengths = try lengths(before)
        try model.requireKnown(prompts + [first])
        let forced = prompts.indices.map { beginnings?[$0].firstToken ?? settings.forcedFirstToken }
        let tokens = forced.compactMap { $0 } + settings.forcedLastTokens.prefix(1)
        if let forced = tokens.first(where: { $0 >= model.vocabularySize }) {
            throw PEFTError(
                "the model's generation settings force the token \(forced), but its vocabulary has \(model.vocabularySize)",
                remedy: "correct 'forced_bos_token_id' or 'forced_eos_token_id'")
        }
        let packed = PackedSequences(read, device: model.device)
        let state = InvocationScope(prompts).run {
            model.startDecoding(packed, capacity: lengths.map(\.most).max() ?? 1, beams: settings.beams)
        }
        try checkTorchErrors()
        return Run(state: state, first: first, before: before, lengths: lengths, forced: forced)
    }

    private func lengths(_ before: [[Int]]) throws -> [Length] {
        let virtual = model.virtualTokens(forRows: before.count)
        return try before.enumerated().map { row, text in
            let most = try settings.maxNewTokens(after: text.count)
            let least = settings.minNewTokens(after: text.count)
            guard let limit = model.positionLimit else {
                return Length(most: most, least: least, endsAtLastPosition: false)
            }
            // The last new token isn't fed back.
            let room = limit - virtual[row] - text.count + 1
            guard room > 0 else {
                throw PEFTError(
                    "prompt \(row + 1) has \(text.count) tokens\(virtual[row] > 0 ? " and \(virtual[row]) virtual ones" : ""), but the model has \(limit) positions",
                    remedy: "shorten it, or truncate prompts with --max-input \(max(2, limit - virtual[row]))")
            }
            return Length(most: min(most, room), least: least, endsAtLastPosition: room < most)
        }
    }

    /// The processed logits.
    /// - Throws: ``PEFTError`` if a logit is NaN or infinite.
    private func processed(
        _ scores: Tensor, _ run: Run, _ prompts: [[Int]], rows: [(prompt: Int, made: [Int])]
    ) throws -> Tensor {
        try model.requireFinite(logits: scores)
        guard !settings.leavesScores || run.forced.contains(where: { $0 != nil }) else { return scores }
        return ScoreProcessor(settings: settings)(
            scores,
            rows.map { row in
                ScoreProcessor.Text(
                    source: prompts[row.prompt], before: run.before[row.prompt], made: row.made,
                    most: run.lengths[row.prompt].most, least: run.lengths[row.prompt].least,
                    forced: run.forced[row.prompt])
            })
    }

    // MARK: Greedy and sampling

    private func continueEach(
        _ run: Run, _ prompts: [[Int]], _ constraint: (any TokenConstraint)?, _ numbers: [Int],
        _ onToken: ((Int, Int) -> Bool)?
    ) throws -> [Text] {
        let device = model.device
        var constraints = prompts.map { _ in constraint }
        let samplers = try prompts.indices.map {
            try settings.sampler(number: numbers.indices.contains($0) ? numbers[$0] : $0)
        }
        var results = [[Int]](repeating: [], count: prompts.count)
        var ended = [Bool](repeating: false, count: prompts.count)
        var open = Array(prompts.indices)
        var tokens = Tensor(run.first, device: device)
        for _ in 0..<(run.lengths.map(\.most).max() ?? 0) {
            let logits = run.state.step(tokens)
            let scores = try processed(logits, run, prompts, rows: open.map { ($0, results[$0]) })
            let next: Tensor
            if settings.temperature > 0 || constraint != nil {
                let ids = try choose(
                    scores, logits, rows: open.map { ($0, results[$0].count) }, samplers, constraints)
                next = Tensor(ids, device: device)
            } else {
                next = scores.argmax(axis: -1)
            }
            let ids: [Int] = next.array()
            guard ids.count == open.count else { break }
            var kept: [Int] = []
            for (row, id) in ids.enumerated() {
                let prompt = open[row]
                ended[prompt] = settings.endTokens.contains(id)
                if ended[prompt] { continue }
                try constraints[prompt]?.accept(token: id)
                results[prompt].append(id)
                ended[prompt] = !(onToken?(prompt, id) ?? true) || constraints[prompt]?.mustEnd == true
                if !ended[prompt], results[prompt].count < run.lengths[prompt].most { kept.append(row) }
            }
            if kept.isEmpty { break }
            if kept.count == open.count {
                tokens = next
            } else {
                // Finished sequences are removed from the batch.
                run.state.keep(rows: kept)
                open = kept.map { open[$0] }
                tokens = Tensor(kept.map { ids[$0] }, device: device)
            }
        }
        return zip(results, ended).map { Text(tokens: $0, isCutShort: !$1) }
    }

    /// One token per row of scores `[rows, vocabulary]`.
    private func choose(
        _ scores: Tensor, _ logits: Tensor, rows: [(prompt: Int, position: Int)], _ samplers: [TokenSampler],
        _ constraints: [(any TokenConstraint)?]
    ) throws -> [Int] {
        let vocabulary = scores.dim(-1)
        let values: [Float] = scores.to(.float32).array()
        try checkTorchErrors()
        var raw: [Float]?
        var mask = TokenMask(vocabulary: vocabulary)
        return try rows.enumerated().map { row, item in
            let range = row * vocabulary..<(row + 1) * vocabulary
            var part = Array(values[range])
            if let constraint = constraints[item.prompt] {
                constraint.allow(into: &mask)
                if !mask.tokens.contains(where: { $0 < vocabulary && part[$0] > -.infinity }) {
                    // Everything that the constraint allows is excluded by other settings.
                    let all: [Float] = raw ?? logits.to(.float32).array()
                    raw = all
                    part = Array(all[range])
                }
                part.withUnsafeMutableBufferPointer { mask.apply(to: $0) }
            }
            return try samplers[item.prompt].choose(filtering: part, position: item.position)
        }
    }

    // MARK: Beam search

    private func beamSearch(_ run: Run, _ prompts: [[Int]]) throws -> [Text] {
        let device = model.device
        let beams = settings.beams
        // With several end tokens, more candidates are needed so that `beams` of them can continue.
        let candidates = max(2, 1 + settings.endTokens.count) * beams
        var random = SeededRandom(seed: settings.seed)
        var searches = run.lengths.map { BeamSearch(settings, most: $0.most) }
        var open = Array(prompts.indices)
        var tokens = Tensor(run.first.flatMap { Array(repeating: $0, count: beams) }, device: device)
        for _ in 0..<(run.lengths.map(\.most).max() ?? 0) {
            var logProbabilities = try processed(
                run.state.step(tokens).to(.float32).logSoftmax(), run, prompts,
                rows: open.flatMap { prompt in searches[prompt].running.map { (prompt, $0) } })
            if settings.temperature > 0 { logProbabilities = SamplingFilter(settings)(logProbabilities) }
            let vocabulary = logProbabilities.dim(-1)
            let scores = Tensor(open.flatMap { searches[$0].runningScores.map(Float.init) }, device: device)
            let totals = (logProbabilities + scores.unsqueezed(1)).reshaped(open.count, -1)
            let (values, indices) = best(min(candidates, beams * vocabulary), of: totals, &random)
            let topValues: [Float] = values.array()
            let topIndices: [Int] = indices.array()
            let count = values.dim(1)
            guard count > 0, topIndices.count == count * open.count else { break }
            var kept: [Int] = []
            var sources: [Int] = []
            var nextTokens: [Int] = []
            for (row, prompt) in open.enumerated() {
                let found = (row * count..<(row + 1) * count).map { i in
                    BeamSearch.Candidate(
                        score: Double(topValues[i]), beam: topIndices[i] / vocabulary,
                        token: topIndices[i] % vocabulary)
                }
                searches[prompt].advance(found)
                if searches[prompt].isDone { continue }
                sources += searches[prompt].sources.map { kept.count * beams + $0 }
                nextTokens += searches[prompt].tokens
                kept.append(row)
            }
            if kept.isEmpty { break }
            if kept.count < open.count {
                run.state.keep(rows: kept)
                open = kept.map { open[$0] }
            }
            run.state.reorder(Tensor(sources, device: device))
            tokens = Tensor(nextTokens, device: device)
        }
        return searches.map { search in
            let tokens = Array(search.best.prefix { !settings.endTokens.contains($0) })
            return Text(tokens: tokens, isCutShort: tokens.count == search.best.count)
        }
    }

    /// The best candidates of each row, or a sample without replacement, best first.
    private func best(
        _ count: Int, of totals: Tensor, _ random: inout SeededRandom
    ) -> (values: Tensor, indices: Tensor) {
        guard settings.temperature > 0 else { return totals.topK(count) }
        // Gumbel top-k: the largest after adding Gumbel noise are a sample without replacement (Vieira 2014; Kool et
        // al. 2019).
        let noise = Tensor.empty(totals.shape, device: totals.device)
        noise.fillUniform(1e-20, 1, from: &random)
        let drawn = (totals - (noise.log() * -1).log()).topK(count).indices
        let (values, order) = totals.gathering(axis: 1, drawn).topK(count)
        return (values, drawn.gathering(axis: 1, order))
    }
}

extension GenerationSettings {
    /// The sampler of a prompt. Penalties are the ``ScoreProcessor``'s, which knows more of them.
    func sampler(number: Int) throws -> TokenSampler {
        var random = SeededRandom(seed: seed, stream: UInt64(truncatingIfNeeded: number))
        return try TokenSampler(
            SamplingParameters(
                temperature: temperature, topK: topK, topP: topP, minP: minP, seed: random.next()))
    }
}
