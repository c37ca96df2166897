import PEFTSupport
import Torch
import TorchNN

/// Weight format of a base model's projections in memory, to which they are converted while it is loaded. Norms and
/// untrained heads stay in the compute dtype; for the embedding and the output layer see ``VocabularyStorage``.
public struct WeightStorage: Sendable, Equatable {
    package let format: WeightFormat

    package static let float32 = WeightStorage(format: .float32)
    /// 16-bit values as stored, upcast tile by tile in matmuls.
    package static let stored = WeightStorage(format: .stored)
    /// bf16, upcast tile by tile in matmuls.
    package static let bfloat16 = WeightStorage(format: .bfloat16)
    /// int8 by rows (Dettmers et al. 2022).
    package static let int8 = WeightStorage(format: .int8)
    /// NF4 or FP4 in blocks (Dettmers et al. 2023).
    package static func blocks(_ settings: BlockQuantization) -> WeightStorage {
        WeightStorage(format: .blocks(settings))
    }
    /// Quantized formats without their variants.
    package static let quantizers = WeightFormat.loadingQuantizers.map { WeightStorage(format: $0) }

    /// The names that ``init(_:block:)`` accepts, but for those of group-wise integers.
    public static let names = WeightFormat.loadingNames

    /// - Parameters:
    ///   - name: one of ``names``; `-double` quantizes the blocks' scales too (double quantization). Or `int2`, `int3`,
    ///     `int4` or `int8` followed by `-g` and a group size, as in `int4-g32`: integers rounded to nearest, with a scale
    ///     and a zero point for each output and group of inputs.
    ///   - block: values per scale of NF4 and FP4, 64 by default.
    /// - Throws: ``PEFTError`` for an unknown name.
    public init(_ name: String, block: Int? = nil) throws {
        format = try WeightFormat(name, block: block ?? WeightFormat.usualBlock, whileLoading: true)
    }

    /// A format of the input embeddings and the output layer.
    /// - Parameter name: one of ``names``.
    /// - Throws: ``PEFTError`` for another name.
    package init(embeddings name: String) throws {
        try self.init(name)
        try checkIsForEmbeddings()
    }

    /// - Throws: ``PEFTError`` for group-wise integers, whose rows can't be looked up.
    func checkIsForEmbeddings() throws {
        guard format.groups == nil else {
            throw PEFTError(
                "embeddings can't be stored as '\(name)'", remedy: "use one of \(Self.names.joined(separator: ", "))")
        }
    }

    /// - Parameter format: one without groups.
    init(format: WeightFormat) { self.format = format }

    /// The name, as in ``names``.
    public var name: String { format.name }

    /// Converts a weight to this format; a meta weight stays without values.
    package func converted(_ weight: any LinearWeight) -> any LinearWeight {
        format.conversion?.weight(weight) ?? weight
    }

    /// The projections that this format applies to, by path.
    package func projections(of model: any LanguageModel) -> [(path: String, linear: Linear)] {
        guard format.conversion != nil else { return [] }
        if let groups = format.groups {
            // Those that `peft quantize` chooses.
            return GroupQuantizer(groups.settings).selection(in: model).chosen.filter {
                !$0.linear.weight.isQuantized
            }
        }
        let left = (model.newModules + [model.outputLayer]).filter { !$0.isEmpty }
        let excluded = format.isQuantized ? model.modelFamily.modules.unquantized : []
        return model.namedModules().compactMap { path, module in
            guard let linear = module as? Linear, !linear.weight.isQuantized,
                !left.contains(where: { path == $0 || path.hasPrefix($0 + ".") }),
                !excluded.contains(String(path.split(separator: ".").last ?? "")),
                format.includesTransposed || !linear.weight.isTransposed
            else { return nil }
            return (path, linear)
        }
    }

    /// The experts that this format applies to, by path. Those of few tokens are faster in fp32 than in 16 bits.
    package func experts(of model: any LanguageModel) -> [(path: String, site: ExpertLinear)] {
        guard format.conversion != nil, format != .stored else { return [] }
        return model.namedModules().compactMap { path, module in
            guard let site = module as? ExpertLinear, site.weight.precision == .full,
                format.groups?.settings.refusal(outputs: site.outputs, inputs: site.inputs) == nil
            else { return nil }
            return (path, site)
        }
    }

    /// Converts the matrices of experts to this format.
    package func converted(_ weight: any ExpertWeight) -> any ExpertWeight {
        if let groups = format.groups { return groups.settings.rounded(weight) }
        let rows = weight.dense(as: .float32).reshaped(weight.experts * weight.outputs, weight.inputs)
        return StoredExperts(converted(DenseWeight(rows)), experts: weight.experts) ?? weight
    }

    /// Converts a model's projections to this format, one at a time.
    package func apply(to model: any LanguageModel) {
        for (_, site) in experts(of: model) { site.weight = converted(site.weight) }
        for (_, linear) in projections(of: model) { linear.weight = converted(linear.weight) }
    }

    /// Installs a meta model's projections in this format.
    ///
    /// - Parameter stored: dtype of a tensor in the files, by the model's name; `nil` if unknown.
    func apply(toOutline model: any LanguageModel, stored: (String) -> DType?) {
        guard self == .stored else { return apply(to: model) }
        for (path, linear) in projections(of: model) {
            guard let type = stored(path + ".weight") else { continue }
            let shape = [linear.outputs, linear.inputs]
            linear.weight = converted(DenseWeight(.empty(shape, dtype: type, device: .meta)))
        }
    }
}

extension LanguageModel {
    /// Dequantizes or upcasts blockwise, int8 and bf16 weights to fp32, so that merging into them isn't rounded
    /// again. (Group-wise weights stay quantized, as their zero points absorb the delta, unless `groups` is set.)
    package func upcastWeights(groups: Bool = false) throws {
        upcastVocabulary()
        let plain = try ModelRegistry.outline(configuration, file: "the model's configuration", head: head)
        let modules = Dictionary(plain.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { a, _ in a })
        for (path, module) in namedModules() {
            guard let linear = module as? Linear, linear.weight.precision != .full,
                groups || linear.weight.grouped == nil
            else { continue }
            let dense = linear.weight.dense(as: .float32)
            // The model's files may have it transposed.
            linear.weight = try (modules[path] as? Linear)?.weight.replacing(with: dense) ?? DenseWeight(dense)
        }
        for (path, module) in namedModules() {
            guard let site = module as? ExpertLinear, site.weight.precision != .full else { continue }
            let isTransposed = (modules[path] as? ExpertLinear)?.weight.isTransposed ?? false
            let dense = site.weight.dense(as: .float32)
            site.weight = DenseExperts(
                (isTransposed ? dense.transposed() : dense).contiguous(), isTransposed: isTransposed)
        }
    }

    /// Whether some projections are stored in blocks or as int8.
    package var hasRoundedWeights: Bool {
        namedModules().contains {
            ($0.module as? Linear)?.weight.isRoundedByMerging == true
                || ($0.module as? ExpertLinear)?.weight.precision == .quantized
        }
    }
}
