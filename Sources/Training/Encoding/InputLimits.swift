import LanguageModels
import PEFTSupport
import PEFTTokenizers

/// The maximum length of examples for a model, and its range of token ids.
package struct InputLimits: Sendable {
    /// Maximum number of tokens of a prompt or text; `nil` where the model sets none.
    package let input: Int?
    /// Where the limit comes from, for messages.
    package let reason: String
    private let positions: Int?
    private let virtualTokens: Int
    private let vocabularySize: Int
    private let family: String
    private let isDecoder: Bool
    private let generates: Bool

    /// - Parameter virtualTokens: virtual tokens that a method not attached yet will prepend.
    /// - Throws: ``PEFTError`` if the virtual tokens leave no room for text.
    package init(_ model: any LanguageModel, _ tokenizer: Tokenizer, virtualTokens: Int = 0) throws {
        let room = model.positionRoom(virtualTokens: virtualTokens)
        positions = model.positionLimit
        self.virtualTokens = room.map { (model.positionLimit ?? $0) - $0 } ?? 0
        (vocabularySize, family) = (model.vocabularySize, model.family)
        (isDecoder, generates) = (model.architecture == .decoder, model.head.task.generates)
        if let room, room < 2 {
            throw PEFTError(
                "\(self.virtualTokens) virtual tokens leave no room for text in the model's \(positions ?? 0) positions",
                remedy: "use fewer virtual tokens")
        }
        var limits: [(tokens: Int, reason: String)] = []
        if let room {
            let virtual = self.virtualTokens > 0 ? " with \(self.virtualTokens) virtual tokens" : ""
            limits.append((room, "the model has \(positions ?? room) positions\(virtual)"))
        }
        if !generates, let length = tokenizer.maximumLength {
            limits.append((length, "'model_max_length' of the tokenizer is \(length)"))
        }
        if model.head.task == .embeddings, let length = model.folderSettings.maximumTextLength {
            limits.append((length, "'max_seq_length' in sentence_bert_config.json is \(length)"))
        }
        let lowest = limits.min { $0.tokens < $1.tokens }
        (input, reason) = (lowest?.tokens, lowest?.reason ?? "")
    }

    /// A note for users whose `--max-input` exceeds what the model reads; `nil` if it doesn't.
    package func note(maxInputTokens: Int) -> String? {
        guard let input, maxInputTokens > input else { return nil }
        return "--max-input is \(maxInputTokens), but \(reason): texts are truncated to \(input) tokens"
    }

    /// - Throws: ``PEFTError`` naming an example that is too long for the model or has a token id outside its vocabulary.
    func check(_ row: TrainingRow, of example: Example) throws {
        if let positions {
            // A decoder doesn't read the last target token.
            let length = generates && isDecoder ? row.input.count + max(0, row.target.count - 1) : row.input.count
            guard length + virtualTokens <= positions else {
                let virtual = virtualTokens > 0 ? " and \(virtualTokens) virtual ones" : ""
                throw PEFTError(
                    "\(example.row): prompt and target have \(row.input.count + row.target.count) tokens\(virtual), but this \(family) model has \(positions) positions",
                    remedy: row.target.count > positions / 2
                        ? "shorten the target" : "shorten the example, or truncate prompts with --max-input")
            }
        }
        let ids = row.input + (generates ? row.target : [])
        guard let unknown = ids.first(where: { $0 >= vocabularySize }) else { return }
        throw PEFTError(
            "\(example.row): token id \(unknown) is outside the model's vocabulary of \(vocabularySize) tokens",
            remedy: "use the tokenizer that belongs to the model, or resize the model's embeddings to the tokenizer")
    }

    /// Checks before training that encoded examples fit a model with its adapter.
    /// - Throws: ``PEFTError`` with the number of the first example that doesn't.
    static func check(_ rows: EncodedRows, of name: String, for model: any LanguageModel) throws {
        guard let room = model.positionRoom(), let limit = model.positionLimit else { return }
        let isText = model.generates && model.architecture == .decoder
        let lengths =
            isText
            ? rows.lengths.map { $0 - 1 }
            : rows.map { row in max(row.input.count, row.row.candidates.map(\.count).max() ?? 0) }
        guard let index = lengths.firstIndex(where: { $0 > room }) else { return }
        let virtual = room < limit ? " besides \(limit - room) virtual tokens" : ""
        throw PEFTError(
            "\(name) example \(index + 1) has \(lengths[index]) tokens, but this \(model.family) model has \(limit) positions\(virtual)",
            remedy: "shorten it, or lower --max-input or --max-length")
    }
}
