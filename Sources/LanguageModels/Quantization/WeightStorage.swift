import Support
import Torch
import TorchNN

/// How a base model's projections are kept in memory. Norms and new heads stay numbers of the type that is computed in;
/// ``VocabularyStorage`` says how the embedding table and the output layer are kept.
public enum WeightStorage: Sendable, Equatable {
    case float32
    /// bf16, widened tile by tile where it is multiplied by.
    case bfloat16
    /// NF4 or FP4 in blocks (Dettmers et al. 2023).
    case blocks(BlockQuantization)
    /// int8 by rows (Dettmers et al. 2022).
    case int8

    public static let names = ["fp32", "bf16", "nf4", "nf4-double", "fp4", "fp4-double", "int8"]

    /// - Parameter name: one of ``names``; `-double` rounds the scales of blocks too.
    /// - Throws: ``PEFTError`` for another name.
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

    /// A weight kept in this way; a shape without numbers where the weight is one.
    public func kept(_ weight: any LinearWeight) -> any LinearWeight {
        switch self {
        case .float32: weight
        case .bfloat16: NarrowWeight(weight.dense(as: .bfloat16).contiguous())
        case .int8: RowQuantizedWeight(rounding: weight.dense(as: .float32))
        case .blocks(let settings): BlockQuantizedWeight(rounding: weight.dense(as: .float32), to: settings)
        }
    }

    /// The projections that are kept so, by path.
    public func projections(of model: any LanguageModel) -> [(path: String, linear: Linear)] {
        guard self != .float32 else { return [] }
        let left = (model.newModules + [model.outputLayer]).filter { !$0.isEmpty }
        let kept = self == .bfloat16 ? [] : model.unquantisedProjections
        return model.namedModules().compactMap { path, module in
            guard let linear = module as? Linear, !linear.weight.isQuantized,
                !left.contains(where: { path == $0 || path.hasPrefix($0 + ".") }),
                !kept.contains(String(path.split(separator: ".").last ?? "")),
                // bf16 is written as it is kept, and these files have it the other way round.
                self != .bfloat16 || !(linear.weight is TransposedWeight)
            else { return nil }
            return (path, linear)
        }
    }

    /// Keeps a model's projections so, one at a time.
    public func apply(to model: any LanguageModel) {
        for (_, linear) in projections(of: model) { linear.weight = kept(linear.weight) }
    }
}

extension LanguageModel {
    /// Makes fp32 numbers of weights that are kept in blocks, as int8 or as bf16, so that what is worked into them isn't
    /// rounded again. (Weights in groups stay, whose zeros take updates, if they aren't to be widened too.)
    public func widenWeights(groups: Bool = false) throws {
        widenVocabulary()
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

    /// Whether some projections are kept in blocks or as int8.
    public var hasRoundedWeights: Bool {
        namedModules().contains {
            let weight = ($0.module as? Linear)?.weight
            return weight is BlockQuantizedWeight || weight is RowQuantizedWeight
        }
    }
}
