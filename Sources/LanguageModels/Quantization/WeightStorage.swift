import Support
import Torch
import TorchNN

/// Weight format of a base model's projections in memory. Norms and untrained heads stay in the compute dtype; for
/// the embedding and the output layer see ``VocabularyStorage``.
public enum WeightStorage: Sendable, Equatable {
    case float32
    /// bf16, upcast tile by tile in matmuls.
    case bfloat16
    /// NF4 or FP4 in blocks (Dettmers et al. 2023).
    case blocks(BlockQuantization)
    /// int8 by rows (Dettmers et al. 2022).
    case int8

    /// The names that ``init(_:block:)`` accepts.
    public static let names = ["fp32", "bf16", "nf4", "nf4-double", "fp4", "fp4-double", "int8"]

    /// - Parameter name: one of ``names``; `-double` quantizes the blocks' scales too (double quantization).
    /// - Throws: ``PEFTError`` for an unknown name.
    public init(_ name: String, block: Int = 64) throws {
        let parts = name.lowercased().split(separator: "-", maxSplits: 1).map(String.init)
        let isDouble = parts.count == 2 && parts[1] == "double"
        switch (parts.first ?? "", parts.count == 1 || isDouble) {
        case ("fp32", true) where !isDouble, ("float32", true) where !isDouble: self = .float32
        case ("bf16", true) where !isDouble, ("bfloat16", true) where !isDouble: self = .bfloat16
        case ("int8", true) where !isDouble: self = .int8
        case ("nf4", true): self = .blocks(BlockQuantization(.nf4, block: block, isDouble: isDouble))
        case ("fp4", true): self = .blocks(BlockQuantization(.fp4, block: block, isDouble: isDouble))
        default:
            throw PEFTError(
                "unknown weight format '\(name)'",
                remedy: (nearestName(to: name, in: Self.names).map { "did you mean \($0)? " } ?? "")
                    + "use one of \(Self.names.joined(separator: ", "))")
        }
    }

    public var name: String {
        switch self {
        case .float32: "fp32"
        case .bfloat16: "bf16"
        case .int8: "int8"
        case .blocks(let settings): settings.code.rawValue + (settings.isDouble ? "-double" : "")
        }
    }

    /// Converts a weight to this format; a meta weight stays without values.
    public func converted(_ weight: any LinearWeight) -> any LinearWeight {
        switch self {
        case .float32: weight
        case .bfloat16: NarrowWeight(weight.dense(as: .bfloat16).contiguous())
        case .int8: RowQuantizedWeight(rounding: weight.dense(as: .float32))
        case .blocks(let settings): BlockQuantizedWeight(rounding: weight.dense(as: .float32), to: settings)
        }
    }

    /// The projections that this format applies to, by path.
    public func projections(of model: any LanguageModel) -> [(path: String, linear: Linear)] {
        guard self != .float32 else { return [] }
        let left = (model.newModules + [model.outputLayer]).filter { !$0.isEmpty }
        let excluded = self == .bfloat16 ? [] : model.modelFamily.modules.unquantized
        return model.namedModules().compactMap { path, module in
            guard let linear = module as? Linear, !linear.weight.isQuantized,
                !left.contains(where: { path == $0 || path.hasPrefix($0 + ".") }),
                !excluded.contains(String(path.split(separator: ".").last ?? "")),
                // bf16 is stored as it is in memory, and these files have it transposed.
                self != .bfloat16 || !(linear.weight is TransposedWeight)
            else { return nil }
            return (path, linear)
        }
    }

    /// Converts a model's projections to this format, one at a time.
    public func apply(to model: any LanguageModel) {
        for (_, linear) in projections(of: model) { linear.weight = converted(linear.weight) }
    }
}

extension LanguageModel {
    /// Dequantizes or upcasts blockwise, int8 and bf16 weights to fp32, so that merging into them isn't rounded
    /// again. (Group-wise weights stay quantized, as their zero points absorb the delta, unless `groups` is set.)
    public func upcastWeights(groups: Bool = false) throws {
        upcastVocabulary()
        let plain = try ModelRegistry.outline(configuration, file: "the model's configuration", head: head)
        let modules = Dictionary(plain.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { a, _ in a })
        for (path, module) in namedModules() {
            guard let linear = module as? Linear,
                linear.weight is BlockQuantizedWeight || linear.weight is RowQuantizedWeight
                    || linear.weight is NarrowWeight || groups && linear.weight is GroupQuantizedWeight
            else { continue }
            let dense = linear.weight.dense(as: .float32)
            let isTransposed = (modules[path] as? Linear)?.weight is TransposedWeight
            linear.weight = isTransposed ? TransposedWeight(dense.T.contiguous()) : DenseWeight(dense)
        }
    }

    /// Whether some projections are stored in blocks or as int8.
    public var hasRoundedWeights: Bool {
        namedModules().contains {
            let weight = ($0.module as? Linear)?.weight
            return weight is BlockQuantizedWeight || weight is RowQuantizedWeight
        }
    }
}
