import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Trains only the embeddings of selected tokens, for example new ones, alone or with another method. A tied output
/// layer uses them too.
public enum TrainableTokens: BuiltInMethod {
    /// Options of ``TrainableTokens``.
    public struct Configuration: BuiltInConfiguration {
        /// Ids of the trained tokens.
        public var tokens: [Int] = []
        /// The embedding; the input embedding if none is named.
        public var selection = TargetSelection(targets: [])

        /// No tokens yet.
        public init() {}

        package func check() throws {}

        package enum Declaration: ConfigurationDeclaration {
            /// A file may name all modules that share one matrix.
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.selection.allowsUnusedTargets = true
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] = [
                .init(
                    "trainable-tokens", key: "token_indices", .integers,
                    help: "ids of the tokens to train, such as 5,17,20-29"
                ) {
                    .array($0.tokens.map { .integer($0) })
                } write: {
                    $0.tokens = try integers($1)
                },
                .init(
                    "targets", key: "target_modules", .names,
                    help: "name of the embedding (default: the input embedding)"
                ) {
                    let selection = $0.selection
                    if selection.targets.isEmpty { return .null }
                    return selection.isPattern
                        ? .string(selection.targets[0]) : .array(selection.targets.map { .string($0) })
                } write: {
                    $0.selection.isPattern = $1.string != nil
                    $0.selection.targets = try $1.string.map { [$0] } ?? names($1)
                },
            ]

            // The initialization doesn't matter to a file, which contains the rows.
            package static let neutral: [String: [JSON]] = ["init_weights": [true, false]]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = TrainableTokens.Configuration
        package static let name = "trainable_tokens"
        package static let peftType: String? = "TRAINABLE_TOKENS"
        package static let summary = "train the embeddings of chosen tokens"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "trainable tokens (\(configuration.tokens.count))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            if configuration.selection.targets.isEmpty {
                configuration.selection.targets = [model.inputEmbedding]
                configuration.selection.isPattern = true
            }
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let selection = resolved(configuration, for: model).selection
            let output = model.linears.filter { $0.path == model.outputLayer }
            let paths = try selection.paths(in: model, among: (model.embeddings.map(\.path) + output.map(\.path)))
            let tables = try model.embeddings.filter { paths.contains($0.path) }.map { table in
                // Hugging Face's files contain the rows once for each module that shares the embedding.
                var sharing = model.views(of: table).map(\.path)
                if model.isTied, table.path == model.inputEmbedding { sharing.append(model.outputLayer) }
                return try TokenRows.attachment(
                    configuration.tokens, of: table, key: "trainable_tokens_delta",
                    copies: sharing.map { "\(AdapterKeys.prefix)\($0).trainable_tokens_delta" })
            }
            return try tables
                + output.filter { paths.contains($0.path) }.map {
                    try OutputTokenRows.attachment(configuration.tokens, of: $0, key: "trainable_tokens_delta")
                }
        }
    }
}

/// Tokens whose embeddings are trained alongside another method: Hugging Face's `trainable_token_indices`.
public struct TrainedTokens: Sendable, Equatable {
    /// Tokens of the input embedding.
    public var ids: [Int] = []
    /// Tokens of other embeddings, by name.
    package var byTable: [String: [Int]] = [:]

    package init() {}

    var json: JSON {
        if !byTable.isEmpty { return .object(byTable.mapValues { .array($0.map { .integer($0) }) }) }
        return ids.isEmpty ? .null : .array(ids.map { .integer($0) })
    }

    mutating func read(_ json: JSON) throws {
        if let object = json.object {
            (ids, byTable) = ([], try object.mapValues(integers))
        } else {
            (ids, byTable) = (try integers(json), [:])
        }
    }

    /// - Throws: ``PEFTError`` if an embedding doesn't exist or is in `adapted`.
    func attachments(for model: ModelOutline, adapted: [String]) throws -> [Attachment] {
        let key = "token_adapter.trainable_tokens_delta"
        let wanted = byTable.isEmpty ? (ids.isEmpty ? [:] : [model.inputEmbedding: ids]) : byTable
        return try wanted.sorted { $0.key < $1.key }.flatMap { name, ids -> [Attachment] in
            let tables = model.embeddings.filter { TargetSelection.names(name, $0.path) }
            let isOutput = TargetSelection.names(name, model.outputLayer)
            // A tied output layer follows its embedding.
            if isOutput, model.isTied { return [] }
            let output = model.linears.filter { isOutput && $0.path == model.outputLayer }
            guard !tables.isEmpty || !output.isEmpty else {
                let leaves = TargetSelection.leaves(model.embeddings.map(\.path))
                let hint = nearestName(to: name, in: leaves).map { "did you mean '\($0)'? " } ?? ""
                throw PEFTError(
                    "this \(model.family) model has no embedding '\(name)'",
                    remedy: hint + "available embeddings are \(leaves.joined(separator: ", "))")
            }
            if let both = (tables.map(\.path) + output.map(\.path)).first(where: adapted.contains) {
                throw PEFTError(
                    "the embedding '\(both)' has both an adapter and trained tokens", remedy: "remove one of them")
            }
            return try tables.map { table in
                // A file may also name the tied output layer's rows.
                let isShared = model.isTied && table.path == model.inputEmbedding
                return try TokenRows.attachment(
                    ids, of: table, key: key,
                    readCopies: isShared ? ["\(AdapterKeys.prefix)\(model.outputLayer).\(key)"] : [])
            } + output.map { try OutputTokenRows.attachment(ids, of: $0, key: key) }
        }
    }
}

/// Trained rows of an embedding, `[tokens, size]`, that replace its own.
final class TokenRows: Module, TiedEmbeddingAdapter, AdapterModule {
    @ParameterInfo(wrappedValue: Tensor.empty([0]), key: "rows") private var rows: Tensor
    /// The trained tokens.
    let tokens: [Int]
    /// Row indices in the embedding, int64 `[tokens]`.
    private let indices: Tensor
    /// For every embedding row, 0 or 1 + its index among the trained rows; int64 `[entries]`.
    private let places: Tensor
    private let key: String
    private let copies: [String]

    /// - Parameters:
    ///   - copies: further names under which files store the rows.
    ///   - readCopies: further names that are read but not written.
    static func attachment(
        _ ids: [Int], of table: ModelOutline.EmbeddingSite, key: String, copies: [String] = [],
        readCopies: [String] = []
    ) throws -> Attachment {
        try check(ids, of: table.path, entries: table.entries)
        return .embedding(table.path, [.init(key, [ids.count, table.size], copies: copies + readCopies)]) {
            table, context in TokenRows(table, ids, key: key, copies: copies, context: context)
        }
    }

    /// - Throws: ``PEFTError`` unless the ids are distinct tokens of the matrix at `path`.
    static func check(_ ids: [Int], of path: String, entries: Int) throws {
        guard !ids.isEmpty else {
            throw PEFTError("no tokens are selected", remedy: "pass their ids, for example --trainable-tokens 5,17")
        }
        if let bad = ids.first(where: { !(0..<entries).contains($0) }) {
            throw PEFTError(
                "token id \(bad) is out of range: '\(path)' has ids 0 to \(entries - 1)",
                remedy: "use a base whose vocabulary includes it, resized as for the adapter")
        }
        guard Set(ids).count == ids.count else {
            throw PEFTError("--trainable-tokens lists a token twice", remedy: "list each once")
        }
    }

    private init(_ table: Embedding, _ ids: [Int], key: String, copies: [String], context: AttachmentContext) {
        (self.key, self.copies, tokens) = (key, copies, ids)
        indices = Tensor(ids.map(Int64.init), device: context.device)
        var places = [Int64](repeating: 0, count: table.entries)
        for (place, id) in ids.enumerated() { places[id] = Int64(place) + 1 }
        self.places = Tensor(places, device: context.device)
        super.init()
        rows = table.weight.rows(indices, as: context.dtype).detached().to(context.dtype)
    }

    var adapterParameters: [AdapterParameter] { [AdapterParameter(key, _rows.parameter)] }

    func storedTensors() -> [String: Tensor] {
        copies.reduce(into: [key: rows]) { $0[$1] = rows.detached().clone() }
    }

    func callAsFunction(_ vectors: Tensor, ids: Tensor) -> Tensor {
        let flat = ids.reshaped(-1)
        let places = places.selecting(flat)
        // Row 0 stands for "not trained".
        let table = Tensor.concatenated([
            Tensor.zeros([1, rows.dim(1)], dtype: rows.dtype, device: rows.device), rows,
        ])
        let trained = table.selecting(places).to(vectors.dtype).reshaped(vectors.shape)
        let isTrained = places.greater(than: 0).reshaped(ids.shape).unsqueezed(-1)
        return trained.selecting(where: isTrained, else: vectors)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        weight.replacing(indices, with: rows.detached().to(weight.dtype))
    }

    func outputWeight(_ weight: any LinearWeight) -> any LinearWeight {
        // A quantized embedding is dequantized only while the output layer uses it.
        let numbers = weight.denseTensor ?? weight.dense(as: rows.dtype)
        return DenseWeight(numbers.replacing(indices, with: rows.to(numbers.dtype)))
    }
    var reachesTiedOutput: Bool { true }
}
