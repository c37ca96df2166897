import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Low-rank Hadamard product (Hyeon-Woo et al. 2022, FedPara, proposition 1): ΔW = s (w1_a w1_b) ∘ (w2_a w2_b), with
/// rank up to r² from the parameters of two rank-r products.
public enum LoHa: BuiltInMethod {
    /// Options of ``LoHa``.
    public struct Configuration: LyCORISConfiguration {
        /// Rank, α, dropout and target modules.
        public var settings = LyCORISSettings()
        /// The default options.
        public init() {}
        package func check() throws { try settings.validate() }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.settings.selection.allowsUnusedTargets = true
                return configuration
            }
            package static let fields: [ConfigurationField<Configuration>] = lycorisFields
            package static let neutral: [String: [JSON]] = [
                "use_effective_conv2d": [false, true]
            ]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = LoHa.Configuration
        package static let name = "loha"
        package static let peftType: String? = "LOHA"
        package static let summary = "Hadamard product of two low-rank matrices (Hyeon-Woo et al. 2022)"
        package static let defaultLearningRate = 3e-3

        package static func label(_ configuration: Configuration) -> String {
            "LoHa r \(configuration.settings.rank) (\(configuration.settings.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.settings.selection = configuration.settings.selection.resolved(for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let settings = resolved(configuration, for: model).settings
            return try settings.selection.sites(in: model).map { site in
                let (rank, scale) = (try settings.rank(at: site.path), try settings.scale(at: site.path))
                return .linear(
                    site.path,
                    [
                        .init("hada_w1_a", [site.outputs, rank]), .init("hada_w1_b", [rank, site.inputs]),
                        .init("hada_w2_a", [site.outputs, rank]), .init("hada_w2_b", [rank, site.inputs]),
                    ]
                ) { linear, context in
                    LoHaAdapter(
                        linear, rank: rank, scale: scale,
                        dropout: LyCORISDropout(rows: settings.rankDropout, module: settings.moduleDropout), context)
                }
            }
        }
    }
}

final class LoHaAdapter: Module, WeightAdapter, AdapterModule, FrozenMemory {
    @ParameterInfo(key: "hada_w1_a") var firstA: Tensor = .zeros([0])
    @ParameterInfo(key: "hada_w1_b") var firstB: Tensor = .zeros([0])
    @ParameterInfo(key: "hada_w2_a") var secondA: Tensor = .zeros([0])
    /// Initially 0, so that training starts at the base model.
    @ParameterInfo(key: "hada_w2_b") var secondB: Tensor = .zeros([0])
    private let scale: Double
    private let dropout: LyCORISDropout
    private let frozenFactors = FrozenValue<LowRankFactors>()
    private let frozenBranch = FrozenValue<RowBranch>()

    init(_ linear: Linear, rank: Int, scale: Double, dropout: LyCORISDropout, _ context: AttachmentContext) {
        (self.scale, self.dropout) = (scale, dropout)
        super.init()
        let (dtype, device) = (context.dtype, context.device)
        func matrix(_ rows: Int, _ columns: Int) -> Tensor {
            let matrix = Tensor.empty([rows, columns], dtype: dtype, device: device)
            // Kaiming uniform with a = √5 over the last axis.
            let bound = 1 / Double(columns).squareRoot()
            if device != .meta { matrix.fillUniform(-bound, bound, from: &context.random) }
            return matrix
        }
        firstA = matrix(linear.outputs, rank)
        firstB = matrix(rank, linear.inputs)
        secondA = matrix(linear.outputs, rank)
        secondB = .zeros([rank, linear.inputs], dtype: dtype, device: device)
    }

    private var parameterTensors: [Tensor] { [firstA, firstB, secondA, secondB] }
    /// Whether a branch of rank r² is not larger than ΔW.
    private var isNarrow: Bool { firstB.dim(0) * firstB.dim(0) <= min(firstA.dim(0), firstB.dim(1)) }
    /// Of the transposes, which mixed-adapter batches read.
    var frozenBytes: Int { (firstA.count + secondA.count) * firstA.dtype.size }
    private var isFrozen: Bool {
        !areGradientsEnabled && !dropout.isLive && !parameterTensors.contains(where: \.requiresGrad)
    }

    /// In a mixed-adapter batch each row is computed from the factors: those of rank r² are r times as large.
    var rowBranch: RowBranch? {
        guard isFrozen else { return nil }
        return frozenBranch(of: parameterTensors) {
            RowBranch(
                HadamardFactors(
                    (firstB.contiguous(), firstA.T.contiguous()), (secondB.contiguous(), secondA.T.contiguous()),
                    scale: scale))
        }
    }

    /// Frozen, the Hadamard product is a LoRA branch of rank r²: row i of A₁B₁ ∘ A₂B₂ is Σ_jk a₁_ij a₂_ik (b₁_j ∘ b₂_k).
    var lowRankFactors: LowRankFactors? {
        let rank = firstB.dim(0)
        guard isFrozen, isNarrow else { return nil }
        return frozenFactors(of: parameterTensors) {
            let (outputs, inputs) = (firstA.dim(0), firstB.dim(1))
            let a = firstB.unsqueezed(1) * secondB.unsqueezed(0)
            let b = firstA.unsqueezed(2) * secondA.unsqueezed(1)
            return LowRankFactors(
                a: a.reshaped(rank * rank, inputs), b: b.reshaped(outputs, rank * rank), scale: scale, dropout: 0)
        }
    }

    /// ΔW `[out, in]`. It is formed once per forward pass, as a Hadamard product doesn't factor into matmuls with x.
    private func update(_ type: DType? = nil) -> Tensor {
        func cast(_ x: Tensor) -> Tensor { type.map { x.detached().to($0) } ?? x }
        return cast(firstA).matmul(cast(firstB)) * cast(secondA).matmul(cast(secondB)) * scale
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        if dropout.leavesOut() { return base(x) }
        var update = update()
        if let mask = dropout.rowMask(update.dim(0), like: update) { update = update * mask }
        return base(x) + Functions.linear(x, update)
    }

    func merged(into weight: Tensor) throws -> Tensor { (weight.to(.float64) + update(.float64)).to(weight.dtype) }
}
