import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Orthogonal fine-tuning with butterfly factors (Liu et al. 2024): y = s ⊙ (x B_m … B_1) Wᵀ + b, where each B_i is a
/// block-diagonal rotation of permuted inputs.
public enum BOFT: BuiltInMethod {
    /// Options of ``BOFT``.
    public struct Configuration: BuiltInConfiguration {
        /// Block size b; 0 to use `blocks`.
        public var blockSize = 4
        /// Number of blocks; 0 to use `blockSize`.
        public var blocks = 0
        /// Number m of butterfly factors.
        public var factors = 1
        /// Probability of dropping a block in training.
        public var dropout = 0.0
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws {
            guard (blocks == 0) != (blockSize == 0) else {
                throw PEFTError(
                    "--blocks is \(blocks) and --block-size is \(blockSize)",
                    remedy: "set one of them and 0 for the other")
            }
            try selection.validate()
        }

        func blockSize(for site: ModelOutline.LinearSite) throws -> Int {
            let wanted = blocks == 0 ? blockSize : blocks
            guard site.inputs.isMultiple(of: wanted) else {
                throw PEFTError(
                    "the \(site.inputs) inputs of \(site.path) aren't divisible by \(wanted)",
                    remedy: "set --\(blocks == 0 ? "block-size" : "blocks") to a divisor of \(site.inputs)")
            }
            let size = blocks == 0 ? blockSize : site.inputs / blocks
            let span = 1 << (factors - 1)
            guard factors == 1 || (size.isMultiple(of: 2) && (site.inputs / size).isMultiple(of: span)) else {
                throw PEFTError(
                    "\(factors) butterfly factors don't fit \(site.inputs / size) blocks of size \(size) at \(site.path)",
                    remedy: "use an even block size and a number of blocks that is a multiple of \(span)")
            }
            return size
        }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.selection.allowsUnusedTargets = true
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] =
                [
                    integerField(
                        "block-size", key: "boft_block_size", \.blockSize, 0...65536, help: "block size"),
                    integerField(
                        "blocks", key: "boft_block_num", \.blocks, 0...65536,
                        help: "number of blocks, instead of the block size"),
                    integerField(
                        "butterfly-factors", key: "boft_n_butterfly_factor", \.factors, 1...30,
                        help: "number of butterfly factors"),
                    numberField(
                        "dropout", key: "boft_dropout", \.dropout, 0...0.99,
                        help: "probability of dropping a block in training"),
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "init_weights": [true], "fan_in_fan_out": [false, true],
            ]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = BOFT.Configuration
        package static let name = "boft"
        package static let peftType: String? = "BOFT"
        package static let summary = "orthogonal fine-tuning with butterfly factors (Liu et al. 2024)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            let size = configuration.blocks == 0 ? "b \(configuration.blockSize)" : "\(configuration.blocks) blocks"
            return "BOFT \(size), m \(configuration.factors) (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.selection = configuration.selection.resolved(for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try resolved(configuration, for: model).selection.sites(in: model).map { site in
                let size = try configuration.blockSize(for: site)
                let blocks = site.inputs / size
                return .linear(
                    site.path,
                    [
                        .init("boft_R", [configuration.factors, blocks, size, size]),
                        .init("boft_s", [site.outputs, 1]),
                    ]
                ) { linear, context in
                    BOFTAdapter(linear, configuration, blocks: blocks, size: size, context)
                }
            }
        }
    }
}

final class BOFTAdapter: Module, LinearAdapter, AdapterModule {
    /// `[factors, blocks, b, b]`, initially 0; the skew-symmetric part parameterizes the rotations.
    @ParameterInfo(key: "boft_R") var rotations: Tensor = .zeros([0])
    /// `[outputs, 1]`, initially 1.
    @ParameterInfo(key: "boft_s") var scales: Tensor = .zeros([0])
    private let blocks: Int
    private let size: Int
    private let dropoutRate: Double
    /// For each factor the permutation of the inputs and its inverse; `nil` for the identity.
    private let orders: [(forward: Tensor, back: Tensor)?]
    private let frozenFactors = FrozenValue<Tensor>()

    init(
        _ linear: Linear, _ configuration: BOFT.Configuration, blocks: Int, size: Int, _ context: AttachmentContext
    ) {
        (self.blocks, self.size, dropoutRate) = (blocks, size, configuration.dropout)
        let inputs = blocks * size
        let device = context.device == .meta ? Device.cpu : context.device
        orders = (0..<configuration.factors).map { factor in
            guard configuration.factors > 1 else { return nil }
            let order = Self.order(inputs, groups: blocks >> factor, half: size / 2)
            var inverse = order
            for (place, source) in order.enumerated() { inverse[source] = place }
            return (Tensor(inverse, device: device), Tensor(order, device: device))
        }
        super.init()
        rotations = .zeros([configuration.factors, blocks, size, size], dtype: context.dtype, device: context.device)
        scales = .ones([linear.outputs, 1], dtype: context.dtype, device: context.device)
    }

    /// The permutation: within each group of inputs, first the half-block chunks at even positions, then those at odd
    /// ones.
    private static func order(_ inputs: Int, groups: Int, half: Int) -> [Int] {
        let length = inputs / max(1, groups)
        let chunks = length / max(1, half)
        let sequence = Array(stride(from: 0, to: chunks, by: 2)) + Array(stride(from: 1, to: chunks, by: 2))
        return (0..<max(1, groups)).flatMap { group in
            sequence.flatMap { chunk in (0..<half).map { group * length + chunk * half + $0 } }
        }
    }

    /// Cayley transforms (I + S)⁻¹ (I − S) of the skew-symmetric parts S, `[factors, blocks, b, b]`.
    private func orthogonal(_ rotations: Tensor) -> Tensor {
        let skew = (rotations - rotations.transposed()) * 0.5
        let identity = Tensor.identity(size, dtype: skew.dtype, device: skew.device)
        return (identity + skew).solving(identity - skew)
    }

    /// Applies one factor to x: `[rows, inputs]` -> `[rows, inputs]`.
    private func turned(_ x: Tensor, _ rotation: Tensor, _ order: (forward: Tensor, back: Tensor)?) -> Tensor {
        let permuted = order.map { x.selecting(axis: 1, $0.forward) } ?? x
        let parts = permuted.reshaped(-1, blocks, size).transposed(0, 1)
        let result = parts.matmul(rotation).transposed(0, 1).reshaped(-1, blocks * size)
        return order.map { result.selecting(axis: 1, $0.back) } ?? result
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        var factors = frozenFactors(of: [rotations]) { orthogonal(rotations) }
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        if probability > 0 {
            let ones = Tensor.ones([factors.dim(0), blocks, 1, 1], dtype: factors.dtype, device: factors.device)
            let kept = Functions.dropout(ones, probability: probability, seed: seed).greater(than: 0).to(
                factors.dtype)
            let identity = Tensor.identity(size, dtype: factors.dtype, device: factors.device)
            factors = factors * kept + identity * (ones - kept)
        }
        var rows = x.reshaped(-1, blocks * size)
        for index in orders.indices.reversed() { rows = turned(rows, factors[index], orders[index]) }
        let y = base(rows.reshaped(x.shape))
        let vector = scales.reshaped(-1)
        return base.bias.map { (y - $0) * vector + $0 } ?? y * vector
    }

    func merged(into weight: Tensor) throws -> Tensor {
        // x B Wᵀ = x (W Bᵀ)ᵀ: the transposed factors in reverse order.
        let factors = orthogonal(rotations.detached().to(.float64))
        var rows = weight.to(.float64)
        for index in orders.indices { rows = turned(rows, factors[index].transposed(), orders[index]) }
        return (rows * scales.detached().to(.float64)).to(weight.dtype)
    }
}
