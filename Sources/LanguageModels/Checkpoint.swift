import Foundation
import Support
import Torch
import TorchNN

/// A model folder in Hugging Face's layout: `config.json` and one or several files of weights. Or a GGUF file, which holds
/// the same things and the tokenizer.
public struct ModelFolder {
    /// The folder, or the GGUF file.
    public let url: URL
    public private(set) var configuration: JSON
    /// What the model is to be for, where it isn't what `config.json` says.
    public private(set) var head: ModelHead?
    /// The type that the model is loaded in where the loader isn't told another.
    public var precision = DType.float32
    /// How embeddings are pooled, as the folder says.
    public let pooling: Pooling?
    /// How projections are kept in memory, where that isn't as they are stored.
    public private(set) var storage: WeightStorage?
    /// How the table of input embeddings and the output layer are kept; `nil` for the model's precision, but for numbers of
    /// 16 bits beside projections in fewer bits, which stay as they are.
    public private(set) var embeddingStorage: WeightStorage?

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
                "there is no model folder at \(url.path)",
                remedy: "name a folder with config.json and model.safetensors, or a .gguf file")
        }
        let file = url.appendingPathComponent("config.json")
        guard FileManager.default.fileExists(atPath: file.path) else {
            throw PEFTError("\(url.path) has no config.json", remedy: "name a folder in Hugging Face's layout")
        }
        configuration = try JSON.read(file)
        pooling = try Pooling.read(in: url)
    }

    /// The same folder read as a classifier of these classes; without labels, as it is.
    public func classifying(_ labels: [String]) -> ModelFolder {
        labels.isEmpty ? self : with(ModelHead(task: .classification, labels: labels))
    }

    /// The same folder read as a model for this task; `nil` leaves it as it is.
    public func with(_ head: ModelHead?) -> ModelFolder {
        var copy = self
        copy.head = head ?? self.head
        return copy
    }

    /// The same folder with its projections kept in some other way than they are stored; `nil` leaves it as it is.
    public func keeping(_ storage: WeightStorage?) -> ModelFolder {
        var copy = self
        copy.storage = storage ?? self.storage
        // A GGUF file's integers are made numbers first.
        if isGGUF, copy.storage != nil, case .object(var fields) = configuration {
            fields["quantization_config"] = nil
            copy.configuration = .object(fields)
        }
        return copy
    }

    /// The same folder with its table of input embeddings and its output layer kept in some other way than they are stored;
    /// `nil` leaves it as it is.
    public func keepingEmbeddings(_ storage: WeightStorage?) -> ModelFolder {
        var copy = self
        copy.embeddingStorage = storage ?? embeddingStorage
        return copy
    }

    private var vocabularyStorage: VocabularyStorage {
        VocabularyStorage(embeddingStorage, keepsStored: storage.map { $0 != .float32 } ?? isQuantized)
    }

    /// Whether it is a GGUF file.
    public var isGGUF: Bool { GGUFHeader.isName(url) }

    func tensors() throws -> ShardedTensors { try ShardedTensors(folder: url, packed: storage == nil) }

    /// Whether its files hold quantised weights.
    public var isQuantized: Bool { configuration["quantization_config"] ?? .null != .null }

    /// Whether the folder's own head is one for other labels, and a new one begins in its place.
    private var renewsHead: Bool {
        guard let head, let stored = ModelHead(configuration: configuration), stored.task.hasLabels else {
            return false
        }
        return head.labels.count != stored.labels.count || head.labels != stored.labels && !stored.hasGenericLabels
    }

    /// Whether the head has to be trained before its outputs mean anything, as the folder has none for these labels.
    public func lacksHead() throws -> Bool {
        let model = try outline()
        let new = model.parameters().map(\.path).filter { path in
            model.newModules.contains { path.hasPrefix($0 + ".") }
        }
        guard !new.isEmpty else { return false }
        return try renewsHead || !tensors().holds(new)
    }

    /// The model without weights: paths and shapes alone.
    public func outline() throws -> any LanguageModel {
        let tensors = try? tensors()
        let model = try outline(configuration, tensors: tensors)
        storage?.apply(to: model)
        vocabularyStorage.apply(to: model) {
            tensors?.type(of: $0, in: model) ?? DType(configuration: configuration)
        }
        return model
    }

    /// - Parameter tensors: what says which projections are quantised, in a folder that has such.
    private func outline(_ configuration: JSON, tensors: ShardedTensors?) throws -> any LanguageModel {
        let file = url.appendingPathComponent("config.json").path
        let (plain, scheme) = try QuantizedFolder.split(configuration, file: file)
        let model = try ModelRegistry.outline(plain, file: file, head: completeHead)
        guard let scheme else {
            if let storage, storage != .float32, storage.projections(of: model).isEmpty {
                throw PEFTError(
                    "none of the projections of a \(model.family) can be kept as \(storage.name)",
                    remedy: storage == .bfloat16 ? "use --weights int8 or nf4" : "leave --weights out")
            }
            return model
        }
        guard storage == nil else {
            throw PEFTError(
                "\(file) says that the weights are quantised already, \(storage?.name ?? "") was asked for",
                remedy: "leave --weights out, or name the model that it was made from")
        }
        try QuantizedFolder.prepare(model, scheme, stored: tensors?.shapes(for: model))
        if configuration["quantization_config"]?[GPTQFormat.zerosKey] ?? .null != .null, !model.hasRealZeros {
            throw PEFTError(
                "\(file) tells of zeros of its own ('\(GPTQFormat.zerosKey)'), and \(url.path) holds none",
                remedy: "fetch the weights again, or merge the adapter again")
        }
        return model
    }

    /// The head, pooling as the folder does it where nothing else was asked for.
    private var completeHead: ModelHead? {
        guard head == nil, let pooling, ModelHead(configuration: configuration) == nil else { return head }
        return ModelHead(task: .embeddings, pooling: pooling)
    }

    /// The model with its weights.
    ///
    /// fp32 weights stay where the file is mapped and are read when they are used; other types are converted one by one.
    /// With a half-precision `dtype` the forward pass computes in it, and what a method trains is kept in fp32.
    /// - Throws: ``PEFTError`` if a tensor is missing, unknown or misshapen, or a file is damaged.
    public func load(dtype: DType? = nil, device: Device = .cpu) throws -> any LanguageModel {
        let dtype = dtype ?? precision
        let tensors = try tensors()
        var configuration = configuration
        if !isGGUF, tensors.holdsOwnOutputLayer, case .object(var object) = configuration {
            // The file decides: a second matrix that differs is not tied, whatever the configuration says.
            object["tie_word_embeddings"] = false
            object["scale_decoder_outputs"] =
                object["scale_decoder_outputs"] ?? self.configuration["tie_word_embeddings"] ?? true
            configuration = .object(object)
        } else if !tensors.has("lm_head.weight"), tensors.has("shared.weight"),
            case .object(var object) = configuration
        {
            // A T5 without a matrix of its own is tied, though those that don't scale say that they aren't.
            object["scale_decoder_outputs"] =
                object["scale_decoder_outputs"] ?? self.configuration["tie_word_embeddings"] ?? true
            object["tie_word_embeddings"] = true
            configuration = .object(object)
        }
        let model = try outline(configuration, tensors: tensors)
        let renewed = renewsHead ? model.newModules : []
        try withTorchErrors {
            try tensors.fill(
                model, dtype: dtype, device: device, renewing: renewed, storage: storage,
                vocabulary: vocabularyStorage)
            for (_, module) in model.namedModules() {
                if let linear = module as? Linear { linear.weight = linear.weight.loaded() }
            }
        }
        if [.bfloat16, .float16].contains(dtype) { model.precision = (dtype, device) }
        return model
    }
}

/// The tensors of all weight files of a folder under one roof: safetensors, or where there are none PyTorch's files.
struct ShardedTensors {
    private let folder: URL
    private let owner: [String: any TensorFile]

    /// - Parameter packed: whether the quantised projections of a GGUF file stay integers.
    init(folder: URL, packed: Bool = true) throws {
        self.folder = folder
        if GGUFHeader.isName(folder) {
            let file = try GGUFModelFile(folder, packed: packed)
            owner = file.entries.mapValues { _ in file }
            return
        }
        var files = try Self.files(in: folder, "model.safetensors") { try SafetensorsFile($0) }
        if files.isEmpty { files = try Self.files(in: folder, "pytorch_model.bin") { try TorchFile($0) } }
        guard !files.isEmpty else {
            throw PEFTError(
                "\(folder.path) has no model.safetensors, and no pytorch_model.bin", remedy: "fetch the weights too")
        }
        var owner: [String: any TensorFile] = [:]
        for file in files { for name in file.entries.keys { owner[name] = file } }
        self.owner = owner
    }

    /// The file of that name, or the shards that its index names; none where neither is there.
    private static func files<File: TensorFile>(in folder: URL, _ name: String, _ read: (URL) throws -> File) throws
        -> [any TensorFile]
    {
        let single = folder.appendingPathComponent(name)
        if FileManager.default.fileExists(atPath: single.path) { return [try read(single)] }
        let index = folder.appendingPathComponent("\(name).index.json")
        guard FileManager.default.fileExists(atPath: index.path) else { return [] }
        guard let map = try JSON.read(index)["weight_map"]?.object, !map.isEmpty else {
            throw PEFTError("\(index.path) has no 'weight_map'", remedy: "fetch the file again")
        }
        var shards: [String: any TensorFile] = [:]
        for (tensor, value) in map.sorted(by: { $0.key < $1.key }) {
            guard let shard = value.string, !shard.contains("/"), shard != "..", !shard.isEmpty else {
                throw PEFTError("\(index.path) gives no file for '\(tensor)'", remedy: "fetch the file again")
            }
            if shards[shard] == nil {
                let file = folder.appendingPathComponent(shard)
                guard FileManager.default.fileExists(atPath: file.path) else {
                    throw PEFTError(
                        "\(folder.path) lacks the shard '\(shard)'", remedy: "fetch all files of the model")
                }
                shards[shard] = try read(file)
            }
        }
        return shards.sorted { $0.key < $1.key }.map(\.value)
    }

    /// The floating-point type that most bytes are stored in.
    var mainType: DType? {
        let bytes = owner.reduce(into: [DType: Int]()) {
            if let entry = $1.value.entries[$1.key], entry.dtype.isFloatingPoint {
                $0[entry.dtype, default: 0] += entry.byteCount
            }
        }
        return bytes.max { $0.value < $1.value }?.key
    }

    func has(_ name: String) -> Bool { owner[name] != nil }

    /// Shapes by name, and by what the model calls them.
    func shapes(for model: any LanguageModel) -> [String: [Int]] {
        owner.reduce(into: [:]) { shapes, item in
            guard let shape = item.value.entries[item.key]?.shape else { return }
            shapes[item.key] = shape
            shapes[model.canonicalName(item.key)] = shape
        }
    }

    /// What the files call a tensor of the model.
    private func name(of path: String, in model: any LanguageModel) -> String? {
        owner[path] != nil ? path : owner.keys.first { model.canonicalName($0) == path }
    }

    /// A tensor by the model's name.
    func tensor(_ path: String, of model: any LanguageModel) throws -> Tensor {
        guard let name = name(of: path, in: model), let file = owner[name] else {
            throw PEFTError("\(folder.path) lacks '\(path)'", remedy: "config.json doesn't belong to these weights")
        }
        return try file.tensor(name)
    }

    func byteCount(_ path: String, of model: any LanguageModel) -> Int {
        name(of: path, in: model).flatMap { owner[$0]?.entries[$0]?.byteCount } ?? 0
    }

    /// The type that a tensor is stored in, by the model's name.
    func type(of path: String, in model: any LanguageModel) -> DType? {
        name(of: path, in: model).flatMap { owner[$0]?.entries[$0]?.dtype }
    }

    func forget(_ path: String, of model: any LanguageModel) {
        if let name = name(of: path, in: model) { owner[name]?.forget(name) }
    }

    /// Whether there is an output layer that differs from the embedding.
    var holdsOwnOutputLayer: Bool {
        let tables = [
            "shared.weight", "model.embed_tokens.weight", "transformer.wte.weight", "embed_tokens.weight",
            "wte.weight",
        ]
        guard let head = owner["lm_head.weight"], let name = tables.first(where: { owner[$0] != nil }),
            let a = try? head.tensor("lm_head.weight"), let b = try? owner[name]?.tensor(name)
        else { return false }
        return !a.isIdentical(to: b)
    }

    func holds(_ names: [String]) -> Bool { names.allSatisfy { owner[$0] != nil } }

    /// - Parameters:
    ///   - renewing: modules that begin anew though the files hold them.
    ///   - storage: how projections are kept, each from the moment it is read, so that two are never there as numbers.
    ///   - vocabulary: how the table of input embeddings and the output layer are.
    func fill(
        _ model: any LanguageModel, dtype: DType, device: Device, renewing: [String] = [],
        storage: WeightStorage? = nil, vocabulary: VocabularyStorage
    ) throws {
        let parameters = model.parameters()
        let wanted = Dictionary(parameters.map { ($0.path, $0.parameter) }, uniquingKeysWith: { first, _ in first })
        var source: [String: String] = [:]
        var unknown: [String] = []
        for name in owner.keys.sorted() where !renewing.contains(where: { name.hasPrefix($0 + ".") }) {
            if wanted[name] != nil {
                source[name] = name
            } else if case let canonical = model.canonicalName(name), wanted[canonical] != nil {
                if source[canonical] == nil { source[canonical] = name }
            } else if !ShardedTensors.isIgnorable(name), !model.isIgnorable(name) {
                unknown.append(name)
            }
        }
        let missing = parameters.map(\.path).filter { source[$0] == nil && model.initialDeviation(of: $0) == nil }
        guard missing.isEmpty else {
            let hint = nearestName(to: missing[0], in: unknown).map { "the file has '\($0)'" }
            throw PEFTError(
                "\(folder.path) lacks \(missing.count) of the model's tensors, the first is '\(missing[0])'",
                remedy: hint)
        }
        guard unknown.isEmpty else {
            throw PEFTError(
                "\(folder.path) holds \(unknown.count) tensors that the model doesn't have, the first is '\(unknown[0])'",
                remedy: "config.json doesn't belong to these weights")
        }
        let keptAsStored = model.storedAsTheyAre
        for (path, parameter) in parameters {
            guard let name = source[path], let file = owner[name], let entry = file.entries[name] else { continue }
            if keptAsStored.contains(ObjectIdentifier(parameter)),
                entry.dtype.isFloatingPoint != parameter.tensor.dtype.isFloatingPoint
                    || !entry.dtype.isFloatingPoint && entry.dtype != parameter.tensor.dtype
            {
                throw PEFTError(
                    "tensor '\(name)' in \(file.url.path) is of the type \(entry.dtype.rawValue), config.json asks for \(parameter.tensor.dtype.rawValue)",
                    remedy: "config.json doesn't belong to these weights")
            }
            guard entry.shape == parameter.tensor.shape else {
                throw PEFTError(
                    "tensor '\(name)' in \(file.url.path) has the shape \(entry.shape), config.json asks for \(parameter.tensor.shape)",
                    remedy: "config.json doesn't belong to these weights")
            }
        }
        // Only now, with nothing left to fail, are the weights taken over.
        var random = SeededRandom(seed: 0, stream: 0x1217)
        let kept = Dictionary(
            (storage?.projections(of: model) ?? []).compactMap { _, linear in
                linear.weight.parameters.first.map { (ObjectIdentifier($0.parameter), linear) }
            }, uniquingKeysWith: { first, _ in first })
        let places = model.vocabularyPlaces.filter { $0.weight is DenseWeight }
        let words = Dictionary(
            places.compactMap { place in
                place.weight.parameters.first.map { (ObjectIdentifier($0.parameter), place) }
            }, uniquingKeysWith: { first, _ in first })
        for place in places { place.computes(in: dtype) }
        for (path, parameter) in parameters {
            guard let name = source[path], let file = owner[name] else {
                let value = Tensor.zeros(parameter.tensor.shape, dtype: dtype, device: device)
                let deviation = model.initialDeviation(of: path) ?? 0
                if deviation > 0 { value.fillNormal(deviation: deviation, from: &random) }
                parameter.tensor = value
                continue
            }
            if let storage, let linear = kept[ObjectIdentifier(parameter)] {
                parameter.tensor = try file.tensor(name).to(device)
                let isTransposed = linear.weight is TransposedWeight
                linear.weight = storage.kept(linear.weight)
                if var blocks = linear.weight as? BlockQuantizedWeight {
                    blocks.numbers = StoredNumbers {
                        let tensor = try file.tensor(name).to(device).to(.float32)
                        return isTransposed ? tensor.T.contiguous() : tensor
                    } forget: {
                        file.forget(name)
                    }
                    linear.weight = blocks
                }
                // The list of parameters still knows the numbers, and the system the file's pages.
                if linear.weight.parameters.first?.parameter.tensor !== parameter.tensor {
                    parameter.tensor = .empty([0])
                    file.forget(name)
                }
                continue
            }
            if let place = words[ObjectIdentifier(parameter)],
                case let stored = try file.tensor(name), let weight = vocabulary.kept(stored.to(device), dtype: dtype)
            {
                place.weight = weight
                if weight.parameters.first?.parameter.tensor.dtype != stored.dtype { file.forget(name) }
                continue
            }
            let isKept = keptAsStored.contains(ObjectIdentifier(parameter))
            parameter.tensor = try isKept ? file.tensor(name).to(device) : file.tensor(name).to(dtype).to(device)
        }
    }

    /// Buffers that some published files carry and no model needs.
    private static func isIgnorable(_ name: String) -> Bool {
        name.hasSuffix("EncDecAttention.relative_attention_bias.weight")
    }
}

extension LanguageModel {
    /// Writes `config.json` and `model.safetensors`, and `files` (the tokenizer) beside them.
    /// - Throws: ``PEFTError``; the folder appears whole or not at all.
    public func save(to folder: URL, copying files: [FolderFile] = [], dtype: DType? = nil) throws {
        try AtomicFile.writeFolder(folder) { try write(into: $0, copying: files, dtype: dtype) }
    }

    /// The same into a folder that exists, for callers that make it appear at once themselves.
    public func write(into folder: URL, copying files: [FolderFile] = [], dtype: DType? = nil) throws {
        var fields = configuration.object ?? [:]
        try checkVocabularyIsWritable()
        let keptAsStored = storedAsTheyAre
        // What is narrower than the model computes in is no measure.
        let narrow = Set(
            vocabularyPlaces.filter { $0.weight is NarrowWeight }.flatMap(\.weight.parameters).map {
                ObjectIdentifier($0.parameter)
            })
        let first = parameters().first { !narrow.contains(ObjectIdentifier($0.parameter)) }
        let stored = dtype ?? first?.parameter.tensor.dtype ?? .float32
        fields["quantization_config"] = try QuantizedFolder.configuration(of: self)
        fields["dtype"] = .string(stored.rawValue)
        fields["torch_dtype"] = nil
        try AtomicFile.write(JSON.object(fields).text() + "\n", to: folder.appendingPathComponent("config.json"))
        let tensors = parameters().map { path, parameter in
            let tensor = parameter.tensor.detached()
            return (path, keptAsStored.contains(ObjectIdentifier(parameter)) ? tensor : tensor.to(stored))
        }
        try withTorchErrors {
            try SafetensorsFile.write(
                Dictionary(tensors, uniquingKeysWith: { first, _ in first }), metadata: ["format": "pt"],
                to: folder.appendingPathComponent("model.safetensors"))
        }
        if head.task == .embeddings, let size = fields["hidden_size"]?.int ?? fields["dim"]?.int {
            try head.pooling.write(
                into: folder, size: size, maximumLength: fields["max_position_embeddings"]?.int ?? 512)
        }
        for file in files { try file.write(into: folder) }
    }
}

extension ModelFolder {
    /// The floating-point type that most of the weights are stored in; `nil` where there are none.
    public func storedType() throws -> DType? { try tensors().mainType }

    /// Bytes of the weight files.
    public var weightBytes: Int {
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
