import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Orthogonal fine-tuning (Qiu et al. 2023): y = (x R) Wᵀ rotates the projection's input in blocks, with R =
/// diag(R_1, …, R_n) and each R_i the Cayley transform of a skew-symmetric matrix.
public enum OFT: BuiltInMethod {
    /// Options of ``OFT``.
    public struct Configuration: BuiltInConfiguration {
        /// Number of blocks, or 0 to use `blockSize`.
        public var blocks = 0
        /// Block size, if `blocks` is 0.
        public var blockSize = 32
        /// Probability of dropping a block in training.
        public var moduleDropout = 0.0
        /// Whether rotations are constrained to within `epsilon` of the identity (COFT).
        public var isConstrained = false
        /// Bound of the constrained rotation.
        public var epsilon = 6e-5
        /// Whether all blocks share one rotation.
        public var isShared = false
        /// Whether the Cayley transform is approximated by a Neumann series of `terms` terms.
        public var usesSeries = true
        /// Terms of the series.
        public var terms = 5
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

        /// The block size for a number of inputs: the divisor nearest to the configured size, the smaller of two.
        func blockSize(for inputs: Int) -> Int {
            let wanted = blocks == 0 ? blockSize : blocks
            let divisors = (1...inputs).filter { inputs.isMultiple(of: $0) }
            let nearest = divisors.min { (abs($0 - wanted), $0) < (abs($1 - wanted), $1) } ?? 1
            return blocks == 0 ? nearest : inputs / nearest
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
                        "blocks", key: "r", \.blocks, 0...65536, help: "number of blocks, instead of the block size"),
                    integerField(
                        "block-size", key: "oft_block_size", \.blockSize, 0...65536, help: "block size"),
                    numberField(
                        "module-dropout", key: "module_dropout", \.moduleDropout, 0...0.99,
                        help: "probability of dropping a block in training"),
                    flagField("coft", key: "coft", \.isConstrained, help: "constrain the rotations (COFT)"),
                    numberField(
                        "coft-eps", key: "eps", \.epsilon, 0...1,
                        help: "COFT's bound on a rotation's distance from the identity"),
                    flagField(
                        "block-share", key: "block_share", \.isShared, help: "share one rotation among all blocks"),
                    flagField(
                        "cayley-series", key: "use_cayley_neumann", \.usesSeries,
                        help: "approximate the Cayley transform by a Neumann series"),
                    integerField(
                        "cayley-terms", key: "num_cayley_neumann_terms", \.terms, 1...100,
                        help: "terms of the Neumann series"
                    ),
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "init_weights": [true], "fan_in_fan_out": [false, true],
            ]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = OFT.Configuration
        package static let name = "oft"
        package static let peftType: String? = "OFT"
        package static let summary = "block-diagonal rotation of a projection's input (Qiu et al. 2023)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            let size = configuration.blocks == 0 ? "b \(configuration.blockSize)" : "\(configuration.blocks) blocks"
            return "\(configuration.isConstrained ? "COFT" : "OFT") \(size) (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.selection = configuration.selection.resolved(for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try resolved(configuration, for: model).selection.sites(in: model).map { site in
                let size = configuration.blockSize(for: site.inputs)
                let stored = configuration.isShared ? 1 : site.inputs / size
                return .linear(site.path, [.init("oft_R.weight", [stored, size * (size - 1) / 2])]) { _, context in
                    OFTAdapter(configuration, blocks: site.inputs / size, stored: stored, size: size, context)
                }
            }
        }
    }
}

final class OFTAdapter: Module, LinearAdapter, AdapterModule {
    /// `[blocks, b (b − 1) / 2]`, initially 0: the strictly upper triangle of each skew-symmetric matrix.
    @ParameterInfo(key: "oft_R.weight") var angles: Tensor = .zeros([0])
    private let configuration: OFT.Configuration
    private let blocks: Int
    private let size: Int
    private let skew: SkewSymmetric
    private let frozenRotations = FrozenValue<Tensor>()

    init(_ configuration: OFT.Configuration, blocks: Int, stored: Int, size: Int, _ context: AttachmentContext) {
        (self.configuration, self.blocks, self.size) = (configuration, blocks, size)
        skew = SkewSymmetric(size: size, device: context.device)
        super.init()
        angles = .zeros([stored, size * (size - 1) / 2], dtype: context.dtype, device: context.device)
    }

    /// R, `[blocks, b, b]`.
    private func rotations(_ angles: Tensor) -> Tensor {
        let q = skew.matrix(angles)
        let rotation = configuration.usesSeries ? skew.neumann(q, terms: configuration.terms) : skew.cayley(q)
        guard configuration.isShared, blocks > 1 else { return rotation }
        return rotation.expanded([blocks, size, size])
    }

    /// Projects the skew-symmetric matrices back into the constraint (COFT).
    private func constrain() {
        withoutGradients {
            let limit = configuration.epsilon / Double(angles.dim(0)).squareRoot()
            // ‖Q‖ includes both triangles.
            let norms = (angles.detached().squared().sum(axes: [1], keep: true) * 2).sqrt()
            let factor =
                (Tensor.full(norms.shape, limit, dtype: norms.dtype, device: norms.device) / norms.atLeast(1e-30))
                .atMost(1)
            angles.detached().copy(from: angles.detached() * factor)
        }
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        var rotation = frozenRotations(of: [angles]) {
            if configuration.isConstrained { constrain() }
            return rotations(angles)
        }
        let (probability, seed) = DropoutScope.draw(configuration.moduleDropout)
        if probability > 0 {
            // A dropped block is the identity.
            let ones = Tensor.ones([blocks, 1, 1], dtype: rotation.dtype, device: rotation.device)
            let kept = Functions.dropout(ones, probability: probability, seed: seed).greater(than: 0).to(
                rotation.dtype)
            let identity = Tensor.identity(size, dtype: rotation.dtype, device: rotation.device)
            rotation = rotation * kept + identity * (ones - kept)
        }
        // `[tokens, blocks, b]` -> `[blocks, tokens, b]`, so that one batched matmul rotates all blocks.
        let parts = x.reshaped(-1, blocks, size).transposed(0, 1)
        return base(parts.matmul(rotation).transposed(0, 1).reshaped(x.shape))
    }

    func merged(into weight: Tensor) throws -> Tensor {
        if configuration.isConstrained { constrain() }
        let rotation = rotations(angles.detached().to(.float64))
        let parts = weight.to(.float64).reshaped(-1, blocks, size).transposed(0, 1)
        return parts.matmul(rotation.transposed()).transposed(0, 1).reshaped(weight.shape).to(weight.dtype)
    }
}
