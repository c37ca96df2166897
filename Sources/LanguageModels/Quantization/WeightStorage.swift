import PEFTSupport
import Torch
import TorchNN

/// Weight format of a base model's projections in memory, to which they are converted while it is loaded. Norms and
/// untrained heads stay in the compute dtype; for the embedding and the output layer see ``VocabularyStorage``.
public struct WeightStorage: Sendable, Equatable {
    package let format: WeightFormat

    package static let float32 = WeightStorage(format: .float32)
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

    /// The names that ``init(_:block:)`` accepts.
    public static let names = WeightFormat.loadingNames

    /// - Parameters:
    ///   - name: one of ``names``; `-double` quantizes the blocks' scales too (double quantization).
    ///   - block: values per scale of NF4 and FP4, 64 by default.
    /// - Throws: ``PEFTError`` for an unknown name.
    public init(_ name: String, block: Int? = nil) throws {
        format = try WeightFormat(name, block: block ?? WeightFormat.usualBlock, whileLoading: true)
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

    /// Converts a model's projections to this format, one at a time.
    package func apply(to model: any LanguageModel) {
        for (_, linear) in projections(of: model) { linear.weight = converted(linear.weight) }
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
    }

    /// Whether some projections are stored in blocks or as int8.
    package var hasRoundedWeights: Bool {
        namedModules().contains { ($0.module as? Linear)?.weight.isRoundedByMerging == true }
    }
}
