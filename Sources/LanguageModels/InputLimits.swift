import PEFTSupport
import Torch
import TorchNN

extension LanguageModel {
    package var positionLimit: Int? { nil }

    /// Maximum length of a sequence in tokens besides `virtualTokens` and those of the active adapters; `nil` without
    /// a position limit.
    package func positionRoom(virtualTokens: Int = 0) -> Int? {
        positionLimit.map { $0 - max(virtualTokens, self.virtualTokens(forRows: 1).first ?? 0) }
    }

    /// Checks that all ids are in the vocabulary.
    /// - Throws: ``PEFTError`` that names the first one that isn't.
    func requireKnown(_ rows: [[Int]]) throws {
        let size = vocabularySize
        for row in rows {
            if let id = row.first(where: { $0 >= size || $0 < 0 }) { throw unknownToken(id) }
        }
    }

    /// The error for a token id outside the vocabulary.
    package func unknownToken(_ id: Int) -> PEFTError {
        PEFTError(
            "token id \(id) is outside the model's vocabulary of \(vocabularySize) tokens",
            remedy: "use the tokenizer that belongs to the model, or resize the model's embeddings to the tokenizer")
    }

    /// The packed sequences, safe for embedding lookup. If an id is outside the vocabulary, the enclosing
    /// ``withTorchErrors(_:)`` fails, and the shapes are unchanged.
    func checked(_ input: PackedSequences) -> PackedSequences {
        guard input.largestID >= vocabularySize else { return input }
        reportFailure(unknownToken(input.largestID))
        return PackedSequences(input.lengths.map { Array(repeating: 0, count: $0) }, device: input.ids.device)
    }
}

/// Number of virtual tokens before each sequence, from soft prompts and prefixes.
func virtualTokens(_ input: InputSite, _ prefixes: KeyValueSite?, forRows rows: Int) -> [Int] {
    zip(input.prompts(forRows: rows), prefixes?.prefixes(forRows: rows) ?? Array(repeating: nil, count: rows)).map {
        ($0?.dim(0) ?? 0) + ($1?.keys.dim(0) ?? 0)
    }
}

/// Positions for an embedding with `limit` entries. If one is out of range, the enclosing ``withTorchErrors(_:)``
/// fails, and the shapes are unchanged.
func checkedPositions(_ positions: [Int], limit: Int?) -> [Int] {
    guard let limit, let last = positions.max(), last >= limit else { return positions }
    reportFailure(
        PEFTError(
            "an example has \(last + 1) tokens, virtual tokens included, but the model has \(limit) positions",
            remedy: "shorten it, or truncate prompts with --max-input"))
    return positions.map { min($0, limit - 1) }
}
