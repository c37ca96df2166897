import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// The base's input embeddings and output layer as stored in an adapter file: Hugging Face stores both in full if the
/// vocabulary was resized, if an adapter covers one of them, or if `save_embedding_layers` is set.
struct StoredVocabulary {
    /// Names of the tensors that are vocabulary matrices.
    private(set) var keys: Set<String> = []
    /// Those that replace the model's own, by name.
    private(set) var replaced: [String: Tensor] = [:]
    private var table: Tensor?
    private var output: Tensor?
    /// Which of the two the file lacks, if its other one has new rows.
    private var completed: String?
    /// Why they don't fit the model.
    private(set) var problem: PEFTError?

    /// Name suffixes after the module's path. Wrapped modules come first, because their plain `weight` is a trained
    /// tensor.
    private static let suffixes = [
        ".token_adapter.base_layer.weight", ".base_layer.weight", ".original_module.weight", ".weight",
    ]

    /// - Throws: ``PEFTError`` if the file can't be read.
    init(_ folder: AdapterFolder, on model: any LanguageModel) throws {
        let places = try Self.places(folder, model)
        guard !places.isEmpty, let site = model.vocabularyTable else { return }
        var found: (table: Tensor?, output: Tensor?)
        for (key, isOutput) in places {
            let tensor = try withTorchErrors { try folder.tensors.tensor(key) }
            guard tensor.rank == 2, tensor.dim(1) == site.size, tensor.dtype.isFloatingPoint else {
                problem = PEFTError(
                    "tensor '\(key)' has shape \(tensor.shape), but this model's hidden size is \(site.size)",
                    remedy: "use the base model that the adapter was trained on")
                return
            }
            if let known = isOutput ? found.output : found.table {
                // The same matrix under a second name.
                guard tensor.isIdentical(to: known) else { continue }
            } else if isOutput {
                found.output = tensor
            } else {
                found.table = tensor
            }
            keys.insert(key)
        }
        let own: (table: any LinearWeight, output: (any LinearWeight)?) = (site.weight, model.ownOutputLayer?.weight)
        let isSameTable = try found.table.map { try Self.isSame($0, own.table) } ?? true
        let isSameOutput = try found.output.map { try Self.isSame($0, own.output ?? own.table) } ?? true
        guard !isSameTable || !isSameOutput else { return }
        if own.output == nil {
            // One stored matrix serves as both; two different ones untie them.
            table = found.table ?? found.output
            if let a = found.table, let b = found.output, !a.isIdentical(to: b) { output = b }
        } else {
            table = isSameTable ? nil : found.table
            output = isSameOutput ? nil : found.output
            let rows = (table?.dim(0) ?? own.table.outputs, output?.dim(0) ?? own.output?.outputs ?? 0)
            if rows.0 != rows.1, own.table.outputs == own.output?.outputs {
                guard try complete(own, isStored: (found.table != nil, found.output != nil)) else {
                    problem = PEFTError(
                        "\(folder.url.path) contains embeddings for \(rows.0) tokens but an output layer for \(rows.1)",
                        remedy: "download the file again")
                    return
                }
            }
        }
        for (key, isOutput) in places
        where keys.contains(key) && (own.output == nil || !(isOutput ? isSameOutput : isSameTable)) {
            replaced[key] = try withTorchErrors { try folder.tensors.tensor(key) }
        }
    }

    /// Resizes the matrix that the file lacks to the rows of the stored one, as transformers does before Hugging Face PEFT
    /// loads the file: new rows start at the mean of the others.
    /// - Returns: whether exactly one of them is stored.
    private mutating func complete(
        _ own: (table: any LinearWeight, output: (any LinearWeight)?), isStored: (table: Bool, output: Bool)
    ) throws -> Bool {
        guard isStored.table != isStored.output, let layer = own.output else { return false }
        let (weight, rows) = (isStored.table ? layer : own.table, (isStored.table ? table : output)?.dim(0) ?? 0)
        let resized = try withTorchErrors {
            try rows > weight.outputs
                ? VocabularyGrowth.grown(weight, to: rows, seed: 0, stream: isStored.table ? 1 : 0).dense(
                    as: .float32)
                : weight.dense(as: .float32).narrowed(axis: 0, 0..<rows)
        }
        if isStored.table { output = resized } else { table = resized }
        completed = isStored.table ? "output layer" : "embeddings"
        return true
    }

    /// The matrices that replace the model's own; `nil` if the file contains only copies or none.
    func matrices(on model: any LanguageModel) -> VocabularyMatrices? {
        guard table != nil || output != nil else { return nil }
        return VocabularyMatrices(
            on: model, table: table.map { Self.weight($0, like: model) },
            output: output.map { Self.weight($0, like: model) },
            stored: replaced)
    }

    /// A note for the user; `nil` if nothing is replaced.
    func note(on model: any LanguageModel) -> String? {
        guard let rows = (table ?? output)?.dim(0), let entries = model.vocabularyTable?.entries else { return nil }
        guard rows != entries else {
            return "the adapter's file contains embeddings that differ from the base's and replace them"
        }
        let missing = completed.map {
            "; it lacks the \($0) of that size, whose new rows are the mean of the others, as transformers initializes them"
        }
        return "the adapter's file contains embeddings for \(rows) tokens, which replace the base's \(entries)"
            + (rows > entries ? missing ?? "" : "")
    }

    /// Stored in the format of the base's embedding, or in fp32 if that is quantized.
    private static func weight(_ tensor: Tensor, like model: any LanguageModel) -> any LinearWeight {
        let own = model.vocabularyTable?.weight.denseTensor?.dtype
        return DenseWeight(tensor.to(own ?? .float32).to(model.device))
    }

    /// Candidate tensor names, most specific first, with whether each is the output layer's.
    private static func places(_ folder: AdapterFolder, _ model: any LanguageModel) throws -> [(
        key: String, isOutput: Bool
    )] {
        let saved = folder.choice.configuration.modulesToSave
        var places: [(rank: Int, key: String, isOutput: Bool)] = []
        let names = folder.tensors.entries.keys
        // A classification head is an output layer too, but not a vocabulary matrix.
        let hasOutput = model.ownOutputLayer != nil || model.hasTiedOutput
        for key in names.sorted() {
            guard let prefix = [AdapterKeys.prefix, "base_model."].first(where: { key.hasPrefix($0) }),
                let rank = suffixes.firstIndex(where: { key.hasSuffix($0) })
            else { continue }
            let path = String(key.dropFirst(prefix.count).dropLast(suffixes[rank].count))
            let isOutput = hasOutput && path == model.outputLayer
            guard isOutput || model.canonicalName(path + ".weight") == model.inputEmbedding + ".weight" else {
                continue
            }
            if suffixes[rank] == ".weight", saved.covers(path) {
                // The rows that are trained, of a vocabulary whose base matrix no other tensor of the file contains.
                let entries =
                    isOutput
                    ? model.ownOutputLayer?.outputs ?? model.vocabularyTable?.entries : model.vocabularyTable?.entries
                let hasBase = names.contains { $0 == "\(prefix)\(path).original_module.weight" }
                guard !hasBase, folder.tensors.entries[key]?.shape.first != entries else { continue }
            }
            places.append((rank, key, isOutput))
        }
        return places.sorted { ($0.rank, $0.key) < ($1.rank, $1.key) }.map { ($0.key, $0.isOutput) }
    }

    private static func isSame(_ stored: Tensor, _ own: any LinearWeight) throws -> Bool {
        guard stored.dim(0) == own.outputs else { return false }
        guard own.device != .meta else { return true }
        return try withTorchErrors {
            // A quantized tensor is the same if the file's values quantize to it.
            let kept = own.isQuantized ? try own.replacing(with: stored.to(.float32)) : nil
            return own.dense(as: stored.dtype).isIdentical(to: kept?.dense(as: stored.dtype) ?? stored)
        }
    }
}
