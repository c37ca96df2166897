import Foundation
import PEFTSupport
import Torch
import TorchNN

/// The tensors of all weight files of a folder: safetensors, or else PyTorch files.
struct ShardedTensors {
    private let folder: URL
    private let owner: [String: any TensorFile]

    /// - Parameters:
    ///   - packed: whether the quantized projections of a GGUF file, or of `compressed`, stay packed.
    ///   - packsOutput: whether that includes the output layer of a GGUF file, if it has one of its own.
    ///   - experts: how the files store the experts of a layer.
    ///   - float8: how the files' 8-bit floats are scaled, if there are some.
    ///   - compressed: the format of the files' quantized weights, if it is `compressed-tensors`.
    ///   - table: name of the input embeddings.
    init(
        folder: URL, packed: Bool = true, packsOutput: Bool = false, experts: ExpertNames? = nil,
        float8: Float8Format? = nil,
        compressed: CompressedTensorsFormat? = nil, table: String? = nil
    ) throws {
        self.folder = folder
        if GGUFHeader.isName(folder) {
            let file = try GGUFModelFile(folder, packed: packed, packsOutput: packsOutput)
            owner = file.entries.mapValues { _ in file }
            return
        }
        var files = try TensorShards.files(in: folder, "model.safetensors") {
            try SafetensorsFile($0, readsFloat8: float8 != nil || compressed != nil)
        }
        if files.isEmpty { files = try TensorShards.files(in: folder, "pytorch_model.bin") { try TorchFile($0) } }
        guard !files.isEmpty else {
            throw PEFTError(
                "\(folder.path) has neither model.safetensors nor pytorch_model.bin",
                remedy: "download the weights too")
        }
        var owner: [String: any TensorFile] = [:]
        for file in files { for name in file.entries.keys { owner[name] = file } }
        owner = try float8?.dequantized(owner) ?? owner
        owner = try compressed?.converted(owner, packed: packed, table: table) ?? owner
        owner = experts?.packed(owner, folder: folder) ?? owner
        self.owner = experts?.stacked(owner, folder: folder) ?? owner
    }

    /// The floating-point dtype with the most bytes.
    var mainType: DType? {
        let bytes = owner.reduce(into: [DType: Int]()) {
            if let entry = $1.value.entries[$1.key], entry.dtype.isFloatingPoint {
                $0[entry.dtype, default: 0] += entry.byteCount
            }
        }
        return bytes.max { $0.value < $1.value }?.key
    }

    func has(_ name: String) -> Bool { owner[name] != nil }

    /// Shapes by the files' names, and by the model's.
    func shapes(for model: any LanguageModel) -> [String: [Int]] {
        owner.reduce(into: [:]) { shapes, item in
            guard let shape = item.value.entries[item.key]?.shape else { return }
            shapes[item.key] = shape
            shapes[model.canonicalName(item.key)] = shape
        }
    }

    /// The files' name of a model's tensor.
    private func name(of path: String, in model: any LanguageModel) -> String? {
        owner[path] != nil ? path : owner.keys.first { model.canonicalName($0) == path }
    }

    /// Reads a tensor by the model's name.
    func tensor(_ path: String, of model: any LanguageModel) throws -> Tensor {
        guard let name = name(of: path, in: model), let file = owner[name] else {
            throw PEFTError(
                "\(folder.path) lacks '\(path)'", remedy: "use the config.json that belongs to these weights")
        }
        return try file.tensor(name)
    }

    /// The stored tensors to which `name` gives a name.
    func tensors(named name: (String) -> String?) throws -> [String: Tensor] {
        var tensors: [String: Tensor] = [:]
        for (key, file) in owner {
            guard let name = name(key) else { continue }
            tensors[name] = try file.tensor(key)
        }
        return tensors
    }

    func byteCount(_ path: String, of model: any LanguageModel) -> Int {
        name(of: path, in: model).flatMap { owner[$0]?.entries[$0]?.byteCount } ?? 0
    }

    /// Stored dtype of a tensor, by the model's name.
    func type(of path: String, in model: any LanguageModel) -> DType? {
        name(of: path, in: model).flatMap { owner[$0]?.entries[$0]?.dtype }
    }

    func forget(_ path: String, of model: any LanguageModel) {
        if let name = name(of: path, in: model) { owner[name]?.forget(name) }
    }

    /// Whether the files contain an output layer that differs from the embedding.
    func holdsOwnOutputLayer(of family: ModelFamily) -> Bool {
        let table = family.modules.inputEmbedding + ".weight"
        func named(_ path: String) -> String? {
            owner[path] != nil ? path : owner.keys.first { family.modules.canonical($0) == path }
        }
        guard let output = family.modules.output.path.flatMap({ named($0 + ".weight") }), let name = named(table),
            let a = try? owner[output]?.tensor(output), let b = try? owner[name]?.tensor(name)
        else { return false }
        return !a.isIdentical(to: b)
    }

    func holds(_ names: [String]) -> Bool { names.allSatisfy { owner[$0] != nil } }

    /// - Parameters:
    ///   - renewing: modules that are reinitialized although the files contain them.
    ///   - storage: weight format of the projections; each is converted when read, so that only one is dense at a
    ///     time.
    ///   - vocabulary: weight format of the input embeddings and the output layer.
    ///   - base: partitions each part of the model when it is complete, so that only one is there as a whole.
    func fill(
        _ model: any LanguageModel, dtype: DType, device: Device, renewing: [String] = [],
        storage: WeightStorage? = nil, vocabulary: VocabularyStorage, partitioning base: PartitionedBase? = nil
    ) throws {
        let parameters = model.parameters()
        let wanted = Dictionary(parameters.map { ($0.path, $0.parameter) }, uniquingKeysWith: { first, _ in first })
        var source: [String: String] = [:]
        var aliases: [(path: String, name: String)] = []
        var unknown: [String] = []
        for name in owner.keys.sorted() where !renewing.contains(where: { name.hasPrefix($0 + ".") }) {
            if wanted[name] != nil {
                source[name] = name
            } else if case let canonical = model.canonicalName(name), wanted[canonical] != nil {
                if source[canonical] == nil { source[canonical] = name }
                aliases.append((canonical, name))
            } else if !ShardedTensors.isIgnorable(name), !model.isIgnorable(name) {
                unknown.append(name)
            }
        }
        let missing = parameters.map(\.path).filter { source[$0] == nil && model.initialDeviation(of: $0) == nil }
        guard missing.isEmpty else {
            let hint = nearestName(to: missing[0], in: unknown).map { "check whether the file's '\($0)' is meant" }
            throw PEFTError(
                "\(folder.path) lacks \(missing.count) of the model's tensors; the first is '\(missing[0])'",
                remedy: hint)
        }
        guard unknown.isEmpty else {
            throw PEFTError(
                "\(folder.path) contains \(unknown.count) tensors that the model doesn't have; the first is '\(unknown[0])'",
                remedy: "use the config.json that belongs to these weights")
        }
        if model.aliasesMayDiffer { try checkAliases(aliases, source) }
        let keptAsStored = model.storedAsTheyAre
        for (path, parameter) in parameters {
            guard let name = source[path], let file = owner[name], let entry = file.entries[name] else { continue }
            if keptAsStored.contains(ObjectIdentifier(parameter)),
                entry.dtype.isFloatingPoint != parameter.tensor.dtype.isFloatingPoint
                    || !entry.dtype.isFloatingPoint && entry.dtype != parameter.tensor.dtype
            {
                throw PEFTError(
                    "tensor '\(name)' in \(file.url.path) has dtype \(entry.dtype.rawValue), but config.json implies \(parameter.tensor.dtype.rawValue)",
                    remedy: "use the config.json that belongs to these weights")
            }
            guard entry.shape == parameter.tensor.shape else {
                throw PEFTError(
                    "tensor '\(name)' in \(file.url.path) has shape \(entry.shape), but config.json implies \(parameter.tensor.shape)",
                    remedy: "use the config.json that belongs to these weights")
            }
        }
        // Weights are replaced only now that nothing can fail.
        var random = SeededRandom(seed: 0, stream: 0x1217)
        let kept = Dictionary(
            (storage?.projections(of: model) ?? []).compactMap { _, linear in
                linear.weight.parameters.first.map { (ObjectIdentifier($0.parameter), linear) }
            }, uniquingKeysWith: { first, _ in first })
        let stacks = Dictionary(
            (storage?.experts(of: model) ?? []).compactMap { _, site in
                site.weight.parameters.first.map { (ObjectIdentifier($0.parameter), site) }
            }, uniquingKeysWith: { first, _ in first })
        let places = model.vocabularyPlaces.filter { $0.weight.precision == .full }
        let words = Dictionary(
            places.compactMap { place in
                place.weight.parameters.first.map { (ObjectIdentifier($0.parameter), place) }
            }, uniquingKeysWith: { first, _ in first })
        for place in places { place.computes(in: dtype) }
        func read(_ path: String, _ parameter: Parameter) throws {
            guard let name = source[path], let file = owner[name] else {
                // A norm's scale begins at 1.
                let isScale = path.hasSuffix("norm.weight")
                let value = Tensor.full(parameter.tensor.shape, isScale ? 1 : 0, dtype: dtype, device: device)
                let deviation = model.initialDeviation(of: path) ?? 0
                if deviation > 0, !isScale { value.fillNormal(deviation: deviation, from: &random) }
                parameter.tensor = value
                return
            }
            if let storage, let site = stacks[ObjectIdentifier(parameter)] {
                parameter.tensor = try file.tensor(name).to(device)
                site.weight = storage.converted(site.weight)
                if site.weight.parameters.first?.parameter !== parameter { parameter.tensor = .empty([0]) }
                file.forget(name)
                return
            }
            if let storage, let linear = kept[ObjectIdentifier(parameter)] {
                parameter.tensor = try file.tensor(name).to(device)
                let isTransposed = linear.weight.isTransposed
                let original = OriginalValues {
                    let tensor = try file.tensor(name).to(device).to(.float32)
                    return isTransposed ? tensor.T.contiguous() : tensor
                } forget: {
                    file.forget(name)
                }
                linear.weight = storage.converted(linear.weight).with(original: original)
                // The parameter list still references the dense values, and the system caches the file's pages.
                if linear.weight.parameters.first?.parameter.tensor !== parameter.tensor {
                    parameter.tensor = .empty([0])
                    file.forget(name)
                }
                return
            }
            if let place = words[ObjectIdentifier(parameter)],
                case let stored = try file.tensor(name),
                let weight = vocabulary.converted(stored.to(device), dtype: dtype)
            {
                place.weight = weight
                if weight.parameters.first?.parameter.tensor.dtype != stored.dtype { file.forget(name) }
                return
            }
            let isKept = keptAsStored.contains(ObjectIdentifier(parameter))
            parameter.tensor = try isKept ? file.tensor(name).to(device) : file.tensor(name).to(dtype).to(device)
        }
        guard let base else { return try parameters.forEach(read) }
        // In the model's order, a part's parameters are neighbors.
        let parts = model.partitionableParts(parameters)
        for (index, (path, parameter)) in parameters.enumerated() {
            try read(path, parameter)
            guard let part = parts[index] else { continue }
            part.module.useLoadedWeights()
            try base.add(part.module)
            for path in part.paths { if let name = source[path] { owner[name]?.forget(name) } }
        }
    }

    /// - Parameters:
    ///   - aliases: stored names of parameters that have several, by the model's name.
    ///   - source: the stored name of each parameter that is read.
    /// - Throws: ``PEFTError`` for a tensor that differs from the one that is read in its place.
    private func checkAliases(_ aliases: [(path: String, name: String)], _ source: [String: String]) throws {
        for (path, name) in aliases {
            guard let read = source[path], read != name, let file = owner[name], let other = owner[read] else {
                continue
            }
            let isSame = try file.tensor(name).isIdentical(to: other.tensor(read))
            file.forget(name)
            guard isSame else {
                throw PEFTError(
                    "tensor '\(name)' in \(file.url.path) differs from '\(read)', and separate embedding tables of encoder"
                        + " and decoder are not supported",
                    remedy: "use a model with one table for both")
            }
        }
    }

    /// Buffers in some published files that no model needs.
    private static func isIgnorable(_ name: String) -> Bool {
        name.hasSuffix("EncDecAttention.relative_attention_bias.weight")
    }
}

extension ShardedTensors {
    /// The first stored tensor with NaN or infinite values, by the file's name.
    func nonFiniteTensor() throws -> NonFiniteTensor? {
        try withTorchErrors {
            for (name, file) in owner.sorted(by: { $0.key < $1.key })
            where file.entries[name]?.dtype.isFloatingPoint == true {
                let count = try file.tensor(name).nonFiniteCount
                try checkTorchErrors()
                file.forget(name)
                if count > 0 { return NonFiniteTensor(path: name, count: count) }
            }
            return nil
        }
    }
}
