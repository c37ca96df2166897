import Support
import Torch
import TorchNN

extension LanguageModel {
    public var positionLimit: Int? { nil }

    /// Tokens of its own that a row may have beside `virtualTokens` ones and those of the adapters that are active;
    /// `nil` where positions don't end.
    public func positionRoom(virtualTokens: Int = 0) -> Int? {
        positionLimit.map { $0 - max(virtualTokens, self.virtualTokens(forRows: 1).first ?? 0) }
    }

    /// Makes sure that the model knows all ids.
    /// - Throws: ``PEFTError`` naming the first that lies outside of the vocabulary.
    func requireKnown(_ rows: [[Int]]) throws {
        let size = vocabularySize
        for row in rows {
            if let id = row.first(where: { $0 >= size || $0 < 0 }) { throw unknownToken(id) }
        }
    }

    /// What is wrong with an id outside of the vocabulary.
    public func unknownToken(_ id: Int) -> PEFTError {
        PEFTError(
            "token id \(id) is outside the model's vocabulary of \(vocabularySize) tokens",
            remedy: "use the tokenizer that belongs to the model, or resize the model's embeddings to the tokenizer")
    }

    /// The packed rows as they may be looked up. Where an id is outside of the vocabulary the enclosing
    /// ``withTorchErrors(_:)`` fails, and the shapes stay.
    func checked(_ input: PackedSequences) -> PackedSequences {
        guard input.largestID >= vocabularySize else { return input }
        reportFailure(unknownToken(input.largestID))
        return PackedSequences(input.lengths.map { Array(repeating: 0, count: $0) }, device: input.ids.device)
    }
}

/// Virtual tokens that lie before each row: those of soft prompts and those of prefixes.
func virtualTokens(_ input: InputSite, _ prefixes: KeyValueSite?, forRows rows: Int) -> [Int] {
    zip(input.prompts(forRows: rows), prefixes?.prefixes(forRows: rows) ?? Array(repeating: nil, count: rows)).map {
        ($0?.dim(0) ?? 0) + ($1?.keys.dim(0) ?? 0)
    }
}

/// Positions of tokens in a table of `limit`. Where one lies beyond it the enclosing ``withTorchErrors(_:)`` fails, and
/// the shapes stay.
func checkedPositions(_ positions: [Int], limit: Int?) -> [Int] {
    guard let limit, let last = positions.max(), last >= limit else { return positions }
    reportFailure(
        PEFTError(
            "an example has \(last + 1) tokens, virtual tokens included, but the model has \(limit) positions",
            remedy: "shorten it, or truncate prompts with --max-input"))
    return positions.map { min($0, limit - 1) }
}
