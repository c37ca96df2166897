import PEFTSupport
import Torch

/// Changes logits before a token is chosen: penalties, forbidden tokens and forced tokens, in the order of
/// transformers' logits processors.
struct ScoreProcessor {
    let settings: GenerationSettings

    /// The tokens that a sequence's next token depends on.
    struct Text {
        /// The prompt.
        let source: [Int]
        /// The initial tokens: a decoder-only model's prompt, or the start token.
        let before: [Int]
        let made: [Int]
        /// Maximum and minimum number of new tokens.
        let most: Int
        let least: Int
        /// The token that it is forced to begin with.
        let forced: Int?
    }

    /// - Parameter scores: `[texts, vocabulary]`, logits or log-probabilities.
    /// - Returns: the processed scores; the same tensor if nothing changes.
    func callAsFunction(_ scores: Tensor, _ texts: [Text]) -> Tensor {
        guard !settings.leavesScores || texts.contains(where: { $0.forced != nil }) else { return scores }
        var result = scores.to(.float32).clone()
        let whole = texts.map { $0.before + $0.made }
        if settings.encoderRepetitionPenalty != 1 {
            result = penalized(result, texts.map(\.source), by: 1 / settings.encoderRepetitionPenalty)
        }
        if settings.repetitionPenalty != 1 { result = penalized(result, whole, by: settings.repetitionPenalty) }
        block(zip(texts, whole).map(tokensThatMayNotFollow), in: result)
        result = forced(result, texts)
        block(zip(texts, whole).map(suppressed), in: result)
        return settings.renormalizes ? result.logSoftmax() : result
    }

    // MARK: Penalties

    /// Applies the repetition penalty to the tokens of each text.
    private func penalized(_ scores: Tensor, _ tokens: [[Int]], by penalty: Double) -> Tensor {
        let vocabulary = scores.dim(-1)
        var values: [Float] = scores.array()
        guard values.count == tokens.count * vocabulary else { return scores }
        for (row, tokens) in tokens.enumerated() {
            var part = Array(values[row * vocabulary..<(row + 1) * vocabulary])
            TokenSampler.penalize(Set(tokens), by: penalty, in: &part)
            values.replaceSubrange(row * vocabulary..<(row + 1) * vocabulary, with: part)
        }
        return Tensor(values, shape: scores.shape, device: scores.device)
    }

    // MARK: Forbidden tokens

    private func tokensThatMayNotFollow(_ text: Text, _ whole: [Int]) -> [Int] {
        var tokens: Set<Int> = []
        if settings.noRepeatNgram > 0 {
            tokens = Self.completions(of: whole, inNgramsOf: whole, length: settings.noRepeatNgram)
        }
        if settings.encoderNoRepeatNgram > 0 {
            tokens.formUnion(
                Self.completions(of: whole, inNgramsOf: text.source, length: settings.encoderNoRepeatNgram))
        }
        for word in settings.badWords where word.count - 1 <= whole.count && whole.ends(with: word.dropLast()) {
            if let last = word.last { tokens.insert(last) }
        }
        if text.made.count < text.least { tokens.formUnion(settings.endTokens) }
        return Array(tokens)
    }

    private func suppressed(_ text: Text, _ whole: [Int]) -> [Int] {
        // A forced first token shifts the start of the text by one.
        let isMoved = text.before.count <= 1 && text.forced != nil
        let atBegin = text.made.count == (isMoved ? 1 : 0) ? settings.suppressedFirstTokens : []
        return Array(settings.suppressedTokens.union(atBegin))
    }

    /// Tokens that would complete an n-gram of `source` whose other tokens end `text`.
    static func completions(of text: [Int], inNgramsOf source: [Int], length: Int) -> Set<Int> {
        guard text.count >= length - 1, source.count >= length else { return [] }
        let prefix = text.suffix(length - 1)
        var result: Set<Int> = []
        for end in (length - 1)..<source.count where source[(end - length + 1)..<end].elementsEqual(prefix) {
            result.insert(source[end])
        }
        return result
    }

    private func block(_ tokens: [[Int]], in scores: Tensor) {
        guard let places = places(tokens, in: scores) else { return }
        scores.set(rows: places.rows, columns: places.columns, to: -.infinity)
    }

    // MARK: Forced tokens

    private func forced(_ scores: Tensor, _ texts: [Text]) -> Tensor {
        guard !settings.forcedLastTokens.isEmpty || texts.contains(where: { $0.forced != nil }) else { return scores }
        let tokens = texts.map { text -> [Int] in
            if text.made.count == text.most - 1, !settings.forcedLastTokens.isEmpty {
                return settings.forcedLastTokens
            }
            guard let first = text.forced, text.before.count + text.made.count == 1 else { return [] }
            return [first]
        }
        guard let places = places(tokens, in: scores) else { return scores }
        let all = Tensor.full(scores.shape, -.infinity, device: scores.device)
        all.set(rows: places.rows, columns: places.columns, to: 0)
        let rows = Tensor(
            tokens.map { $0.isEmpty ? Float(0) : 1 }, shape: [tokens.count, 1], device: scores.device)
        return all.selecting(where: rows.greater(than: 0.5), else: scores)
    }

    // MARK: -

    /// Row and column indices of each text's tokens in the scores, without those outside the vocabulary; `nil` if
    /// none.
    private func places(_ tokens: [[Int]], in scores: Tensor) -> (rows: Tensor, columns: Tensor)? {
        let vocabulary = scores.dim(-1)
        var rows: [Int] = []
        var columns: [Int] = []
        for (row, tokens) in tokens.enumerated() {
            for token in tokens where token < vocabulary {
                rows.append(row)
                columns.append(token)
            }
        }
        guard !rows.isEmpty else { return nil }
        return (Tensor(rows, device: scores.device), Tensor(columns, device: scores.device))
    }
}

extension Array where Element: Equatable {
    fileprivate func ends(with other: ArraySlice<Element>) -> Bool { suffix(other.count).elementsEqual(other) }
}
