import Foundation
import PEFTSupport
import Torch
import TorchNN

/// A model folder in Hugging Face's layout: `config.json` and one or more weight files. Or a GGUF file, which
/// contains the same and the tokenizer.
public struct ModelFolder {
    /// The folder, or the GGUF file.
    public let url: URL
    /// Its `config.json`, or what a GGUF file says.
    public private(set) var configuration: JSON
    /// The requested head and task, if they differ from `config.json`.
    public private(set) var head: ModelHead?
    /// Default dtype for loading the model.
    package var precision = DType.float32
    /// How embeddings are pooled, according to the folder.
    package let pooling: Pooling?
    /// Weight format of the projections in memory, if it differs from the stored one.
    package private(set) var storage: WeightStorage?
    /// Weight format of the input embeddings and the output layer. `nil` is the model's precision, except that 16-bit
    /// values stay as stored if the projections are quantized.
    package private(set) var embeddingStorage: WeightStorage?
    /// The number of tokens that the vocabulary is enlarged to when loaded, and the seed of the new rows.
    private var growth: (tokens: Int, seed: UInt64)?
    /// Whether the quantized output layer of a GGUF file stays packed.
    private var packsOutput = false
    /// How the files' 8-bit floats are scaled; `nil` without them.
    private var float8: Float8Format?
    /// The format of the files' quantized weights, if it is `compressed-tensors`.
    private var compressed: CompressedTensorsFormat?

    /// - Throws: ``PEFTError`` if the folder or its `config.json` is missing or damaged.
    public init(_ url: URL) throws {
        if let file = try Self.ggufFile(at: url) {
            self.url = file
            configuration = try GGUFModelFile(file, packed: true).configuration
            pooling = nil
            return
        }
        self.url = url
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder), isFolder.boolValue else {
            throw PEFTError(
                "model folder \(url.path) doesn't exist",
                remedy: "pass a folder with config.json and model.safetensors, or a .gguf file")
        }
        let file = url.appendingPathComponent("config.json")
        guard FileManager.default.fileExists(atPath: file.path) else {
            throw PEFTError("\(url.path) has no config.json", remedy: "pass a model folder in Hugging Face's layout")
        }
        configuration = try JSON.read(file, tagsInfinity: true)
        float8 = try Float8Format(configuration)
        compressed = try CompressedTensorsFormat(configuration)
        pooling = try Pooling.read(in: url)
        // Floats are dequantized while they are read.
        if float8 != nil || compressed?.hasIntegers == false { removeQuantization() }
    }

    /// The folder as a sequence classifier with these labels; unchanged without labels.
    package func classifying(_ labels: [String]) -> ModelFolder {
        labels.isEmpty ? self : with(ModelHead(task: .classification, labels: labels))
    }

    /// The folder as a model with this head; `nil` leaves it unchanged.
    public func with(_ head: ModelHead?) -> ModelFolder {
        var copy = self
        copy.head = head ?? self.head
        return copy
    }

    /// The folder with its projections converted to a weight format when loaded; `nil` leaves it unchanged.
    public func with(weights storage: WeightStorage?) -> ModelFolder {
        // Quantized weights are kept as stored by default.
        if storage == .stored, isQuantized { return self }
        var copy = self
        copy.storage = storage ?? self.storage
        // These are dequantized first.
        if isGGUF || compressed != nil, copy.storage != nil { copy.removeQuantization() }
        return copy
    }

    private mutating func removeQuantization() {
        guard case .object(var fields) = configuration else { return }
        fields["quantization_config"] = nil
        configuration = .object(fields)
    }

    /// The folder for generation, whose steps read each matrix once: 16-bit projections stay as stored, which halves the time and
    /// the memory with the numbers of fp32, unless they are quantized or another format was requested.
    /// - Parameter packsOutput: whether the quantized output layer of a GGUF file stays packed, too, so that adapters can't
    ///   replace its values.
    package func keepingStoredWeights(packsOutput: Bool = true) -> ModelFolder {
        var copy = storage == nil ? with(weights: .stored) : self
        copy.packsOutput = packsOutput
        return copy
    }

    /// The folder with its input embeddings and output layer converted to a weight format when loaded; `nil` leaves
    /// it unchanged.
    public func with(embeddings storage: WeightStorage?) -> ModelFolder {
        var copy = self
        copy.embeddingStorage = storage ?? embeddingStorage
        return copy
    }

    /// The folder with its embeddings and output layer enlarged to at least `tokens` rows when loaded.
    package func with(tokens: Int, seed: UInt64) -> ModelFolder {
        var copy = self
        copy.growth = (tokens, seed)
        return copy
    }

    private var vocabularyStorage: VocabularyStorage {
        VocabularyStorage(embeddingStorage, keepsStored: storage.map { $0 != .float32 } ?? isQuantized)
    }

    /// Whether it is a GGUF file.
    package var isGGUF: Bool { GGUFHeader.isName(url) }

    func tensors() throws -> ShardedTensors {
        let modules = ModelRegistry.family(of: configuration)?.modules
        return try ShardedTensors(
            folder: url, packed: storage == nil, packsOutput: packsOutput && embeddingStorage == nil && growth == nil,
            experts: modules?.experts, float8: float8, compressed: compressed,
            table: modules?.embedding)
    }

    /// Whether the stored weights are quantized.
    public var isQuantized: Bool { configuration["quantization_config"] ?? .null != .null }

    /// Whether the stored head is for other labels and is reinitialized.
    private var renewsHead: Bool {
        guard let head, let stored = ModelHead(configuration: configuration), stored.task.hasLabels else {
            return false
        }
        return head.labels.count != stored.labels.count || head.labels != stored.labels && !stored.hasGenericLabels
    }

    /// Whether the head is untrained, because the folder has none for these labels.
    package func lacksHead() throws -> Bool {
        let model = try outline()
        let new = model.parameters().map(\.path).filter { path in
            model.newModules.contains { path.hasPrefix($0 + ".") }
        }
        guard !new.isEmpty else { return false }
        return try renewsHead || !tensors().holds(new)
    }

    /// The model on the meta device, with paths and shapes only.
    public func outline() throws -> any LanguageModel {
        let tensors = try? tensors()
        let model = try outline(configuration, tensors: tensors)
        func stored(_ name: String) -> DType? {
            tensors?.type(of: name, in: model) ?? DType(configuration: configuration)
        }
        storage?.apply(toOutline: model, stored: stored)
        vocabularyStorage.apply(to: model, stored: stored)
        if let growth { try model.growVocabulary(to: growth.tokens, seed: growth.seed) }
        return model
    }

    /// - Parameter tensors: tells which projections are quantized, in a quantized folder.
    private func outline(_ configuration: JSON, tensors: ShardedTensors?) throws -> any LanguageModel {
        try embeddingStorage?.checkIsForEmbeddings()
        let file = url.appendingPathComponent("config.json").path
        let (plain, scheme) = try QuantizedFolder.split(configuration, file: file)
        let model = try ModelRegistry.outline(plain, file: file, head: completeHead)
        model.folderSettings = try folderSettings()
        guard let scheme else {
            if let storage, storage != .stored, storage.format.conversion != nil,
                storage.projections(of: model).isEmpty
            {
                throw PEFTError(
                    "no projection of a \(model.family) can be stored as \(storage.name)",
                    remedy: storage.format.includesTransposed ? "remove --weights" : "use --weights int8 or nf4")
            }
            return model
        }
        guard storage == nil else {
            throw PEFTError(
                "the weights are already quantized according to \(file), so they can't be loaded as \(storage?.name ?? "")",
                remedy: "remove --weights, or use the original model")
        }
        try QuantizedFolder.prepare(model, scheme, stored: tensors?.shapes(for: model))
        if configuration["quantization_config"]?[GPTQFormat.zerosKey] ?? .null != .null, !model.hasFloatZeroPoints {
            throw PEFTError(
                "\(file) declares floating-point zero points ('\(GPTQFormat.zerosKey)'), but \(url.path) has none",
                remedy: "download the weights again, or repeat the merge")
        }
        return model
    }

    private func folderSettings() throws -> FolderSettings {
        isGGUF ? FolderSettings() : try FolderSettings(folder: url, configuration: self.configuration)
    }

    /// The head, with the folder's pooling unless another was requested.
    private var completeHead: ModelHead? {
        guard head == nil, let pooling, ModelHead(configuration: configuration) == nil else { return head }
        return ModelHead(task: .embeddings, pooling: pooling)
    }

    /// Whether the files' tensors decide that the output layer is tied to the embedding or that it isn't, whatever the
    /// configuration says; `nil` if they don't.
    private func tying(_ tensors: ShardedTensors) -> Bool? {
        guard let family = ModelRegistry.family(of: configuration) else { return nil }
        // A different output matrix means that the layers aren't tied.
        if !isGGUF, tensors.holdsOwnOutputLayer(of: family) { return false }
        // A T5 without an output matrix is tied, although those without output scaling are configured as untied.
        if case .tiedIfMissing(let output, _) = family.modules.output, !tensors.has(output + ".weight"),
            tensors.has(family.modules.inputEmbedding + ".weight")
        {
            return true
        }
        return nil
    }

    /// Loads the model with its weights.
    ///
    /// fp32 weights are memory-mapped and read on use; other dtypes are converted one tensor at a time. With a
    /// half-precision `dtype` the forward pass computes in it, and trained parameters are kept in fp32.
    /// - Throws: ``PEFTError`` if a tensor is missing, unknown or misshapen, or a file is damaged.
    public func load(dtype: DType? = nil, device: Device = .cpu) throws -> any LanguageModel {
        try load(dtype: dtype, device: device, partitioning: nil)
    }

    /// The same with the weights divided among processes, which all load the model.
    package func load(dtype: DType? = nil, device: Device = .cpu, partitioning base: PartitionedBase?) throws
        -> any LanguageModel
    {
        guard base == nil || device == .cpu else {
            throw PEFTError("--shard-base needs the CPU, but the device is \(device)", remedy: "remove --shard-base")
        }
        guard base == nil || growth == nil else {
            throw PEFTError(
                "the vocabulary of a base that processes share can't be enlarged", remedy: "remove --shard-base")
        }
        let dtype = dtype ?? precision
        let tensors = try tensors()
        var configuration = configuration
        if let tied = tying(tensors), let family = ModelRegistry.family(of: configuration),
            case .object(var object) = configuration
        {
            object = object.with(tied: tied, of: family)
            // Scaling follows from what the file says about tying.
            if let key = family.modules.output.scaleKey {
                object[key] = object[key] ?? self.configuration["tie_word_embeddings"] ?? true
            }
            configuration = .object(object)
        }
        let model = try outline(configuration, tensors: tensors)
        let renewed = renewsHead ? model.newModules : []
        try withTorchErrors {
            try tensors.fill(
                model, dtype: dtype, device: device, renewing: renewed, storage: storage,
                vocabulary: vocabularyStorage, partitioning: base)
            model.useLoadedWeights()
        }
        model.partitionedBase = base
        if [.bfloat16, .float16].contains(dtype) { model.precision = (dtype, device) }
        if let growth { try model.growVocabulary(to: growth.tokens, seed: growth.seed) }
        model.source = url
        return model
    }
}

extension ModelFolder {
    /// The floating-point dtype of most of the weights, by bytes; `nil` if there are none.
    package func storedType() throws -> DType? { try tensors().mainType }

    /// Total size of the weight files in bytes.
    package var weightBytes: Int {
        if isGGUF {
            return (try? url.resolvingSymlinksInPath().resourceValues(forKeys: [.fileSizeKey]).fileSize) ?? 0
        }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []
        let safe = names.filter { $0.hasSuffix(".safetensors") }
        let weights = safe.isEmpty ? names.filter { $0.hasPrefix("pytorch_model") && $0.hasSuffix(".bin") } : safe
        return weights.reduce(0) { sum, name in
            let size = try? url.appendingPathComponent(name).resolvingSymlinksInPath()
                .resourceValues(forKeys: [.fileSizeKey]).fileSize
            return sum + (size ?? 0)
        }
    }
}
