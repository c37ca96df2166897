import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Orthogonal fine-tuning in the principal subspace (openreview.net/forum?id=FSHrinMArK): ΔW = s B (R − I) A, where A
/// and B are the weight's principal singular vectors with their singular values, and R `[r, r]` is a trained
/// orthogonal matrix between trained diagonal scales.
///
/// The file holds R only: A and B are computed from the base again. The signs of singular vectors are those of
/// libtorch's decomposition in fp32, as in PyTorch.
public enum PSOFT: BuiltInMethod {
    /// Options of ``PSOFT``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r of the principal subspace.
        public var rank = 32
        /// α; s is α / r, by which the singular values are divided, so that it only scales gradients' rounding.
        public var alpha = 32.0
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Whether A has the roots of the singular values too (`pissa_init`), otherwise B has all (`psoft_init`).
        public var isSymmetric = false
        /// Iterations of the randomized decomposition (`lowrank`); `nil` is the exact one (`full`).
        public var isRandomized = false
        /// Iterations of the randomized SVD.
        public var iterations = 10
        /// Seed of the randomized decomposition.
        public var seed = 0
        /// Whether R without its scales is orthogonal; otherwise any matrix.
        public var isOrthogonal = true
        /// Whether R's rows are scaled.
        public var scalesRows = true
        /// Whether R's columns are scaled.
        public var scalesColumns = true
        /// Whether Cayley's transform is approximated by a Neumann series of `terms` terms.
        public var usesSeries = false
        /// Terms of the series.
        public var terms = 5
        /// Largest Frobenius norm of the skew-symmetric matrix in the series.
        public var epsilon: Double?
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        private static func wordField(
            _ name: String, key: String, _ path: WritableKeyPath<Configuration, Bool> & Sendable,
            words: (off: String, on: String), help: String
        ) -> ConfigurationField<Configuration> {
            .init(name, key: key, .choice([words.off, words.on]), help: help) {
                .string($0[keyPath: path] ? words.on : words.off)
            } write: {
                let word = try text($1)
                guard word == words.on || word == words.off else {
                    throw PEFTError("unknown value '\(word)'", remedy: "use \(words.off) or \(words.on)")
                }
                $0[keyPath: path] = word == words.on
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of the principal subspace"),
                    numberField("alpha", key: "psoft_alpha", \.alpha, 1e-6...1e6, help: "alpha"),
                    numberField(
                        "dropout", key: "psoft_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    wordField(
                        "init", key: "ab_svd_init", \.isSymmetric, words: ("psoft_init", "pissa_init"),
                        help: "which factors have the singular values: psoft_init (one) or pissa_init (both)"),
                    wordField(
                        "svd", key: "psoft_svd", \.isRandomized, words: ("full", "lowrank"),
                        help: "decomposition: full or lowrank, which is randomized"),
                    integerField(
                        "svd-iterations", key: "psoft_svd_lowrank_niter", \.iterations, 0...1000,
                        help: "iterations of the randomized decomposition"),
                    integerField(
                        "svd-seed", key: "random_seed", \.seed, 0...Int.max,
                        help: "seed of the randomized decomposition"),
                    flagField("orthogonal", key: "psoft_orth", \.isOrthogonal, help: "rotate only"),
                    flagField("scale-rows", key: "psoft_mag_b", \.scalesRows, help: "scale the rotation's rows"),
                    flagField(
                        "scale-columns", key: "psoft_mag_a", \.scalesColumns, help: "scale the rotation's columns"),
                    flagField(
                        "cayley-series", key: "use_cayley_neumann", \.usesSeries,
                        help: "approximate the Cayley transform by a Neumann series"),
                    integerField(
                        "cayley-terms", key: "num_cayley_neumann_terms", \.terms, 1...100,
                        help: "terms of the Neumann series"),
                    .init(
                        "cayley-eps", key: "cayley_neumann_eps", .number(0...1e3),
                        help: "largest norm of the series' matrix (none)"
                    ) {
                        $0.epsilon.map { .number($0) } ?? .null
                    } write: {
                        $0.epsilon = try number($1)
                    },
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = [
                "fan_in_fan_out": [false, true], "init_weights": [true, false],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = PSOFT.Configuration
        package static let name = "psoft"
        package static let peftType: String? = "PSOFT"
        package static let summary =
            "a trained rotation of the weight's principal subspace (PSOFT, OpenReview FSHrinMArK)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "PSOFT r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let rank = configuration.rank
            return try resolved(configuration, for: model).selection.sites(in: model).map { site in
                guard rank <= min(site.inputs, site.outputs) else {
                    throw PEFTError(
                        "the rank \(rank) exceeds that of '\(site.path)', whose weight is [\(site.outputs), \(site.inputs)]",
                        remedy: "use a rank of at most \(min(site.inputs, site.outputs))")
                }
                let shape = configuration.isOrthogonal ? [SkewSymmetric.count(size: rank)] : [rank, rank]
                let tensors =
                    [TensorSpec("psoft_R.weight", shape)]
                    + (configuration.scalesRows ? [TensorSpec("psoft_R.vector_b", [rank])] : [])
                    + (configuration.scalesColumns ? [TensorSpec("psoft_R.vector_a", [rank])] : [])
                return .linear(site.path, tensors) { linear, context in
                    PSOFTAdapter(linear, configuration, context)
                }
            }
        }
    }
}

final class PSOFTAdapter: Module, LowRankDelta {
    /// The strictly upper triangle of a skew-symmetric matrix, initially 0, or R itself, initially the identity.
    private let rotation: Parameter
    /// `[r]`, initially 1.
    private let rows: Parameter?
    private let columns: Parameter?
    /// A `[r, in]` and B `[out, r]`, frozen.
    private let a: Tensor
    private let b: Tensor
    private let configuration: PSOFT.Configuration
    private let skew: SkewSymmetric
    var scale: Double { configuration.alpha / Double(configuration.rank) }
    var dropoutRate: Double { configuration.dropout }

    init(_ linear: Linear, _ configuration: PSOFT.Configuration, _ context: AttachmentContext) {
        self.configuration = configuration
        let rank = configuration.rank
        let (dtype, device) = (context.dtype, context.device)
        skew = SkewSymmetric(size: rank, device: device)
        rotation = Parameter(
            configuration.isOrthogonal
                ? context.zeros([SkewSymmetric.count(size: rank)])
                : .identity(rank, dtype: dtype, device: device))
        func ones() -> Parameter { Parameter(.ones([rank], dtype: dtype, device: device)) }
        rows = configuration.scalesRows ? ones() : nil
        columns = configuration.scalesColumns ? ones() : nil
        guard device != .meta else {
            (a, b) = (context.zeros([rank, linear.inputs]), context.zeros([linear.outputs, rank]))
            super.init()
            return
        }
        let factors = withoutGradients { () -> (a: Tensor, b: Tensor) in
            let (u, s, vh) = Self.decomposed(linear.weight.dense(as: .float32), configuration)
            let scaled = s / (configuration.alpha / Double(rank))
            guard configuration.isSymmetric else { return (vh, u * scaled) }
            return (vh * scaled.sqrt().unsqueezed(1), u * scaled.sqrt())
        }
        (a, b) = (factors.a.to(dtype).contiguous(), factors.b.to(dtype).contiguous())
        super.init()
    }

    /// The `rank` largest singular values with their vectors: u `[out, r]`, s `[r]`, vh `[r, in]`.
    private static func decomposed(_ weight: Tensor, _ configuration: PSOFT.Configuration)
        -> (u: Tensor, s: Tensor, vh: Tensor)
    {
        let rank = configuration.rank
        guard configuration.isRandomized else {
            let (u, s, vh) = weight.svd()
            return (
                u.narrowed(axis: 1, 0..<rank), s.narrowed(axis: 0, 0..<rank), vh.narrowed(axis: 0, 0..<rank)
            )
        }
        // Halko et al. 2011, algorithms 4.4 and 5.1, as in torch.svd_lowrank: of the tall one of W and Wᵀ.
        let isWide = weight.dim(0) < weight.dim(1)
        let tall = isWide ? weight.T : weight
        let start = Tensor.empty([tall.dim(1), rank])
        start.fillNormal(seed: UInt64(configuration.seed))
        var basis = tall.matmul(start.to(weight.device)).qr().q
        for _ in 0..<configuration.iterations {
            basis = tall.matmul(tall.T.matmul(basis).qr().q).qr().q
        }
        let (u, s, vh) = basis.T.matmul(tall).svd()
        let left = basis.matmul(u)
        return isWide ? (vh.T, s, left.T) : (left, s, vh)
    }

    var adapterParameters: [AdapterParameter] {
        [AdapterParameter("psoft_R.weight", rotation)]
            + (rows.map { [AdapterParameter("psoft_R.vector_b", $0)] } ?? [])
            + (columns.map { [AdapterParameter("psoft_R.vector_a", $0)] } ?? [])
    }

    /// R `[r, r]`
    private func matrix(_ cast: (Tensor) -> Tensor) -> Tensor {
        var matrix = cast(rotation.tensor)
        if configuration.isOrthogonal {
            var q = skew.matrix(matrix.unsqueezed(0))
            if configuration.usesSeries {
                if let epsilon = configuration.epsilon {
                    let norm = q.squared().sum().atLeast(1e-30).sqrt()
                    let limit = Tensor.full(norm.shape, epsilon, dtype: norm.dtype, device: norm.device)
                    q = q * (limit / (norm + 1e-12)).atMost(1)
                }
                matrix = skew.neumann(q, terms: configuration.terms)
            } else {
                matrix = skew.cayley(-q)
            }
            matrix = matrix.reshaped(configuration.rank, configuration.rank)
        }
        if let rows { matrix = matrix * cast(rows.tensor).unsqueezed(1) }
        if let columns { matrix = matrix * cast(columns.tensor) }
        return matrix
    }

    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let rotation = matrix(cast)
        let change = rotation - Tensor.identity(configuration.rank, dtype: rotation.dtype, device: rotation.device)
        return (a.to(rotation.dtype), b.to(rotation.dtype).matmul(change))
    }
}
