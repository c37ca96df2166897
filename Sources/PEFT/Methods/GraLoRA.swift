import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Granular low-rank adaptation (Jung et al. 2025, eq. 4): the weight is divided into k × k blocks with a LoRA of rank r /
/// k each; optionally with one LoRA of rank `hybridRank` over all of it.
public enum GraLoRA: BuiltInMethod {
    /// Options of ``GraLoRA``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r of the blocks of one row or column together.
        public var rank = 32
        /// Rank of the LoRA over the whole weight.
        public var hybridRank = 0
        /// α; ΔW is scaled by α / (r + hybrid rank).
        public var alpha = 64.0
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Number k of blocks along each side of the weight.
        public var blocks = 2
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws {
            guard rank.isMultiple(of: blocks) else {
                throw PEFTError(
                    "rank \(rank) isn't divisible by \(blocks) blocks", remedy: "set --blocks to a divisor of --rank")
            }
            try selection.validate()
        }

        var scale: Double { alpha / Double(rank + hybridRank) }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of the blocks of a row together"),
                    integerField(
                        "hybrid-rank", key: "hybrid_r", \.hybridRank, 0...65536,
                        help: "rank of a LoRA over the whole weight"),
                    numberField(
                        "alpha", key: "alpha", \.alpha, 0...1e6,
                        help: "alpha; ΔW is scaled by alpha / (rank + hybrid rank)"),
                    numberField(
                        "dropout", key: "gralora_dropout", \.dropout, 0...0.99,
                        help: "dropout on the branch's input"),
                    integerField(
                        "blocks", key: "gralora_k", \.blocks, 1...65536, help: "blocks along each side of the weight"),
                ] + selectionFields(hasExclusions: false)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "fan_in_fan_out": [false, true], "init_weights": [true, false],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = GraLoRA.Configuration
        package static let name = "gralora"
        package static let peftType: String? = "GRALORA"
        package static let summary = "a LoRA for each block of the weight (Jung et al. 2025)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "GraLoRA r \(configuration.rank), k \(configuration.blocks) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let (blocks, rank, hybrid) = (configuration.blocks, configuration.rank, configuration.hybridRank)
            return try sites(configuration, in: model).map { site in
                try requireDivisor(blocks, of: site, option: "blocks")
                var tensors: [TensorSpec] = [
                    .init("gralora_A", [blocks, site.inputs / blocks, rank]),
                    .init("gralora_B", [blocks, rank, site.outputs / blocks]),
                ]
                if hybrid > 0 {
                    tensors.append(.init("gralora_A_general.weight", [hybrid, site.inputs]))
                    tensors.append(.init("gralora_B_general.weight", [site.outputs, hybrid]))
                }
                return .linear(site.path, tensors) { linear, context in GraLoRAAdapter(linear, configuration, context)
                }
            }
        }
    }
}

final class GraLoRAAdapter: Module, LinearAdapter, AdapterModule {
    /// `[k, in / k, r]`.
    private let a: Parameter
    /// `[k, r, out / k]`, initially 0, so that training starts at the base model.
    private let b: Parameter
    /// Factors of the LoRA over the whole weight, A `[hybrid rank, in]` and B `[out, hybrid rank]`.
    private let general: (a: Parameter, b: Parameter)?
    private let scale: Double
    private let dropoutRate: Double

    init(_ linear: Linear, _ configuration: GraLoRA.Configuration, _ context: AttachmentContext) {
        let (blocks, rank, hybrid) = (configuration.blocks, configuration.rank, configuration.hybridRank)
        (scale, dropoutRate) = (configuration.scale, configuration.dropout)
        let (inputs, outputs) = (linear.inputs / blocks, linear.outputs / blocks)
        a = Parameter(context.uniform([blocks, inputs, rank], bound: 1 / Double(inputs).squareRoot()))
        b = Parameter(context.zeros([blocks, rank, outputs]))
        general =
            hybrid > 0
            ? (
                Parameter(context.uniform([hybrid, linear.inputs])),
                Parameter(context.zeros([linear.outputs, hybrid]))
            ) : nil
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        [("gralora_A", a), ("gralora_B", b)]
            + (general.map { [("gralora_A_general.weight", $0.a), ("gralora_B_general.weight", $0.b)] } ?? [])
    }

    /// The blocks' output for x `[tokens, in]`, `[tokens, out]`: block (j, n) of ΔW multiplies the j-th part of A_n's
    /// ranks by the n-th part of B_j's.
    private func branch(_ x: Tensor, _ a: Tensor, _ b: Tensor) -> Tensor {
        let (blocks, rank) = (a.dim(0), a.dim(2))
        // `[n, tokens, in / k]` · `[n, in / k, r]`
        let low = x.reshaped(-1, blocks, a.dim(1)).transposed(0, 1).matmul(a)
        // `[n, tokens, j, r / k]` -> `[j, tokens, n, r / k]`
        let exchanged = low.reshaped(blocks, -1, blocks, rank / blocks).permuted(2, 1, 0, 3)
        return exchanged.reshaped(blocks, -1, rank).matmul(b).transposed(0, 1).reshaped(-1, blocks * b.dim(2))
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        var shape = x.shape
        shape[shape.count - 1] = b.tensor.dim(0) * b.tensor.dim(2)
        let dropped = dropout(x, dropoutRate).reshaped(-1, x.dim(-1))
        let y = base(x) + (branch(dropped, a.tensor, b.tensor) * scale).reshaped(shape)
        guard let general else { return y }
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        return Functions.loraBranch(
            y, x: x, a: general.a.tensor, b: general.b.tensor, scale: scale, dropout: probability, seed: seed)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let (a, b) = (a.tensor.detached().to(.float64), b.tensor.detached().to(.float64))
        // The branch of a unit vector is a column of ΔW.
        let identity = Tensor.identity(weight.dim(1), dtype: .float64, device: weight.device)
        var delta = branch(identity, a, b).T
        if let general {
            let (a, b) = (general.a.tensor.detached().to(.float64), general.b.tensor.detached().to(.float64))
            delta = delta + b.matmul(a)
        }
        return (weight.to(.float64) + delta * scale).to(weight.dtype)
    }
}
