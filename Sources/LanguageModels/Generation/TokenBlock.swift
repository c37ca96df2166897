import Torch

/// Tokens that may not come next: an end before `minNewTokens`, and what would repeat an n-gram of the text so far
/// (Paulus et al. 2018), as in transformers, where the start token, or a decoder-only model's prompt, counts as part of the text.
enum TokenBlock {
    /// Sets the scores [texts, vocabulary] of such tokens to −∞; `before` is what each text began with.
    static func apply(
        _ parameters: GenerateParameters, to scores: Tensor, histories: [[Int]], before: [[Int]],
        endTokens: Set<Int>
    ) {
        guard parameters.noRepeatNgram > 0 || parameters.minNewTokens > 0 else { return }
        var rows: [Int] = []
        var columns: [Int] = []
        for (row, history) in histories.enumerated() {
            var tokens: Set<Int> = []
            if parameters.noRepeatNgram > 0 {
                tokens = banned(after: before[row] + history, length: parameters.noRepeatNgram)
            }
            if history.count < parameters.minNewTokens { tokens.formUnion(endTokens) }
            for token in tokens {
                rows.append(row)
                columns.append(token)
            }
        }
        guard !rows.isEmpty else { return }
        scores.set(
            rows: Tensor(rows, device: scores.device), columns: Tensor(columns, device: scores.device), to: -.infinity
        )
    }

    /// Tokens that complete an n-gram which `text` already holds.
    static func banned(after text: [Int], length: Int) -> Set<Int> {
        guard text.count >= length else { return [] }
        let prefix = text.suffix(length - 1)
        var result: Set<Int> = []
        for end in (length - 1)..<text.count where text[(end - length + 1)..<end].elementsEqual(prefix) {
            result.insert(text[end])
        }
        return result
    }
}
