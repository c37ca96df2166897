import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN

/// Initialization of a soft prompt (Lester et al. 2021, section 2.2).
public struct PromptStart: Sendable {
    /// Where the initial values come from.
    public enum Kind: String, Sendable, CaseIterable {
        /// Uniform in [−0.5, 0.5].
        case uniform
        /// N(0, 1), Hugging Face's `RANDOM`.
        case normal
        /// Embeddings of frequent tokens.
        case vocabulary
        /// Class names, each the mean of its tokens' embeddings, the rest as in `vocabulary`.
        case labels
        /// The tokens of a text, repeated or truncated to the prompt's length.
        case text

        /// The value in Hugging Face's files, which have three.
        var huggingFaceName: String {
            switch self {
            case .uniform, .normal: "RANDOM"
            case .vocabulary, .labels: "SAMPLE_VOCAB"
            case .text: "TEXT"
            }
        }

        init?(_ word: String) {
            switch word.lowercased() {
            case "random": self = .normal
            case "sample_vocab": self = .vocabulary
            case let word: self.init(rawValue: word)
            }
        }
    }

    /// Where the initial values come from.
    public var kind = Kind.vocabulary
    /// The initial text, or comma-separated labels.
    public var text: String?
    /// Tokenizer name that Hugging Face's files store with a text.
    package var tokenizer: String?

    /// Initial values of one kind.
    public init(_ kind: Kind = .vocabulary) { self.kind = kind }

    var labels: [String] {
        (text ?? "").split(separator: ",").map { String($0.trimmingSpaces) }.filter { !$0.isEmpty }
    }

    func validate() throws {
        if kind == .text, (text ?? "").isEmpty {
            throw PEFTError("initializing the prompt from a text needs one", remedy: "pass --init-text")
        }
        if kind == .labels, labels.isEmpty {
            throw PEFTError(
                "initializing the prompt from class labels needs their names",
                remedy: "pass them, for example --init-text positive,negative")
        }
    }

    /// "The 5,000 most common tokens", as vocabularies are sorted by frequency.
    static let commonTokens = 5_000

    /// Initial embeddings `[rows, size]`.
    /// - Throws: ``PEFTError`` if a tokenizer is needed but not available.
    func vectors(_ rows: Int, size: Int, _ context: AttachmentContext) throws -> Tensor {
        let vectors = Tensor.zeros([rows, size], dtype: context.dtype, device: context.device)
        // Values are loaded from a file next.
        guard context.device != .meta, !context.isLoading else { return vectors }
        switch kind {
        case .uniform: vectors.fillUniform(-0.5, 0.5, from: &context.random)
        case .normal: vectors.fillNormal(from: &context.random)
        case .vocabulary, .labels, .text:
            let entries = try Self.table(size, context).entries
            return try Self.vectors(of: tokens(rows, entries: entries, context), size: size, context)
        }
        return vectors
    }

    /// For each row, the mean embedding of its tokens: `[rows, size]`, zero if values are loaded from a file next.
    /// - Throws: ``PEFTError`` for a token outside the vocabulary.
    static func vectors(of tokens: [[Int]], size: Int, _ context: AttachmentContext) throws -> Tensor {
        let vectors = Tensor.zeros([tokens.count, size], dtype: context.dtype, device: context.device)
        guard context.device != .meta, !context.isLoading else { return vectors }
        let (table, scale) = (try table(size, context), context.model.embeddingScale)
        if let unknown = tokens.joined().first(where: { !(0..<table.entries).contains($0) }) {
            throw PEFTError(
                "the token \(unknown) of the prompt is outside the vocabulary of \(table.entries)",
                remedy: "use ids of the model's tokenizer")
        }
        for (row, ids) in tokens.enumerated() {
            let mean = withoutGradients {
                table.weight.rows(Tensor(ids, device: context.device), as: context.dtype).to(context.dtype)
                    .mean(axes: [0])
            }
            vectors[row].copy(from: scale == 1 ? mean : mean * scale)
        }
        return vectors
    }

    private static func table(_ size: Int, _ context: AttachmentContext) throws -> Embedding {
        let path = context.model.inputEmbedding
        guard let table = context.model.namedModules().first(where: { $0.path == path })?.module as? Embedding,
            table.size == size
        else {
            throw PEFTError(
                "the model's token embeddings don't have its input size \(size)",
                remedy: "use --init uniform")
        }
        return table
    }

    /// For each row, the tokens whose mean embedding initializes it.
    private func tokens(_ rows: Int, entries: Int, _ context: AttachmentContext) throws -> [[Int]] {
        switch kind {
        case .uniform, .normal: return []
        case .vocabulary: return sampled(rows, entries: entries, context)
        case .labels:
            let tokenizer = try tokenizer(context)
            let labels = try labels.map { label in
                let ids = tokenizer.encode(text: label, addSpecialTokens: false)
                guard !ids.isEmpty else {
                    throw PEFTError("the label '\(label)' has no tokens", remedy: "rename it")
                }
                return ids
            }
            guard labels.count <= rows else {
                throw PEFTError(
                    "got \(labels.count) labels for \(rows) virtual tokens", remedy: "raise --tokens")
            }
            return labels + sampled(rows - labels.count, entries: entries, context)
        case .text:
            let ids = try tokenizer(context).encode(text: text ?? "")
            guard !ids.isEmpty else {
                throw PEFTError("the initial text has no tokens", remedy: "pass a nonempty --init-text")
            }
            return (0..<rows).map { [ids[$0 % ids.count]] }
        }
    }

    private func tokenizer(_ context: AttachmentContext) throws -> Tokenizer {
        guard let tokenizer = context.tokenizer else {
            throw PEFTError(
                "initializing the prompt from a text needs the model's tokenizer, which is missing",
                remedy: "use --init vocabulary, or a model folder with a tokenizer")
        }
        return tokenizer
    }

    /// A sample of frequent tokens, without replacement as far as possible.
    private func sampled(_ rows: Int, entries: Int, _ context: AttachmentContext) -> [[Int]] {
        let defaults = context.model.generationDefaults
        var special = defaults.endTokens.union([defaults.padToken])
        special.formUnion([defaults.startToken, context.tokenizer?.unknownTokenID].compactMap { $0 })
        special.formUnion([context.tokenizer?.bosTokenID, context.tokenizer?.eosTokenID].compactMap { $0 })
        var common = Array((0..<entries).lazy.filter { !special.contains($0) }.prefix(Self.commonTokens))
        guard !common.isEmpty else { return Array(repeating: [0], count: rows) }
        context.random.shuffle(&common)
        return (0..<rows).map { [common[$0 % common.count]] }
    }
}

extension MethodConfiguration {
    static func startFields(_ start: WritableKeyPath<Self, PromptStart> & Sendable) -> [ConfigurationField<Self>] {
        [
            .init(
                "init", key: "prompt_tuning_init", .choice(PromptStart.Kind.allCases.map(\.rawValue)),
                help: "prompt initialization: uniform, normal, vocabulary, labels or text"
            ) {
                .string($0[keyPath: start].kind.huggingFaceName)
            } write: {
                $0[keyPath: start].kind = try kind(text($1))
            }
        ] + textFields(start)
    }

    private static func kind(_ word: String) throws -> PromptStart.Kind {
        guard let kind = PromptStart.Kind(word) else {
            throw PEFTError("'\(word)' is not a prompt initialization", remedy: "use vocabulary")
        }
        return kind
    }

    static func textFields(_ start: WritableKeyPath<Self, PromptStart> & Sendable) -> [ConfigurationField<Self>] {
        [
            .init(
                "init-text", key: "prompt_tuning_init_text", .text,
                help: "initial text of the prompt, or comma-separated labels"
            ) {
                $0[keyPath: start].text.map { .string($0) } ?? .null
            } write: {
                $0[keyPath: start].text = try text($1)
            },
            .init(
                "init-tokenizer", key: "tokenizer_name_or_path", .text,
                help: "tokenizer name to store in adapter_config.json (default: the model's)"
            ) {
                $0[keyPath: start].tokenizer.map { .string($0) } ?? .null
            } write: {
                $0[keyPath: start].tokenizer = try text($1)
            },
        ]
    }
}
