import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Low-rank Kronecker product (Yeh et al. 2024, LyCORIS, section 3.2): ΔW = s w1 ⊗ w2 with w1 `[l, m]` and w2 `[k,
/// n]`, out = l k, in = m n, where each factor may be a product of rank r.
public enum LoKr: BuiltInMethod {
    /// Options of ``LoKr``.
    public struct Configuration: LyCORISConfiguration {
        /// Rank, α, dropout and target modules.
        public var settings = LyCORISSettings()
        /// Whether w1 is also decomposed to rank r if that is smaller.
        public var decomposesBoth = false
        /// Target size of one of the two factors; −1 makes them as equal as possible.
        public var factor = -1
        /// Whether w2 instead of w1 is initialized to zero, as in LyCORIS.
        public var startsLikeLyCORIS = false

        /// The default options.
        public init() {}
        package func check() throws {
            try settings.validate()
            guard factor == -1 || factor >= 1 else {
                throw PEFTError("the decompose factor is \(factor)", remedy: "use 1 or more, or -1")
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.settings.selection.allowsUnusedTargets = true
                return configuration
            }
            package static let fields: [ConfigurationField<Configuration>] =
                lycorisFields + [
                    flagField(
                        "decompose-both", key: "decompose_both", \.decomposesBoth,
                        help: "decompose both Kronecker factors"),
                    integerField(
                        "decompose-factor", key: "decompose_factor", \.factor, -1...65536,
                        help: "size of one factor; -1 for the most equal pair"),
                    .init(
                        "init", key: "init_weights", .choice(["true", "lycoris"]),
                        help: "factor initialized to zero: the first (true) or the second (lycoris)"
                    ) {
                        $0.startsLikeLyCORIS ? "lycoris" : true
                    } write: {
                        $0.startsLikeLyCORIS = $1 == "lycoris"
                    },
                ]
            package static let neutral: [String: [JSON]] = [
                "use_effective_conv2d": [false, true], "init_weights": [true, "lycoris"],
            ]
        }
    }

    /// Factorizes a size, smaller factor first: the pair with the smallest sum whose smaller member is at most
    /// `limit`, or exactly `limit` if that divides the size.
    static func factors(of size: Int, limit: Int) -> (Int, Int) {
        if limit > 0, size.isMultiple(of: limit) { return (limit, size / limit) }
        let most = limit == -1 ? size : limit
        var best = (1, size)
        var candidate = 2
        while candidate * candidate <= size, candidate <= most {
            if size.isMultiple(of: candidate) { best = (candidate, size / candidate) }
            candidate += 1
        }
        return best
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = LoKr.Configuration
        package static let name = "lokr"
        package static let peftType: String? = "LOKR"
        package static let summary = "Kronecker product of two small matrices (Yeh et al. 2024)"
        package static let defaultLearningRate = 3e-3

        package static func label(_ configuration: Configuration) -> String {
            "LoKr r \(configuration.settings.rank) (\(configuration.settings.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.settings.selection = configuration.settings.selection.resolved(for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let settings = resolved(configuration, for: model).settings
            return try settings.selection.sites(in: model).map { site in
                let rank = try settings.rank(at: site.path)
                let scale = try settings.scale(at: site.path)
                let inputs = factors(of: site.inputs, limit: configuration.factor)
                let outputs = factors(of: site.outputs, limit: configuration.factor)
                let first = (outputs.0, inputs.0)
                let second = (outputs.1, inputs.1)
                let isFirstLow = configuration.decomposesBoth && Double(rank) < Double(max(first.0, first.1)) / 2
                let isSecondLow = Double(rank) < Double(max(second.0, second.1)) / 2
                func specs(_ name: String, _ shape: (Int, Int), isLow: Bool) -> [TensorSpec] {
                    isLow
                        ? [.init(name + "_a", [shape.0, rank]), .init(name + "_b", [rank, shape.1])]
                        : [.init(name, [shape.0, shape.1])]
                }
                return .linear(
                    site.path,
                    specs("lokr_w1", first, isLow: isFirstLow) + specs("lokr_w2", second, isLow: isSecondLow)
                ) { _, context in
                    LoKrAdapter(
                        first: first, second: second, firstRank: isFirstLow ? rank : nil,
                        secondRank: isSecondLow ? rank : nil, scale: scale,
                        startsLikeLyCORIS: configuration.startsLikeLyCORIS,
                        dropout: LyCORISDropout(rows: settings.rankDropout, module: settings.moduleDropout), context)
                }
            }
        }
    }
}

/// A Kronecker factor, dense or as a product of rank r.
final class KroneckerFactor: Module {
    let key: String
    private let whole: Parameter?
    private let left: Parameter?
    private let right: Parameter?

    init(
        _ key: String, _ shape: (Int, Int), rank: Int?, isZero: Bool, zeroesRight: Bool, _ context: AttachmentContext
    ) {
        self.key = key
        let (dtype, device) = (context.dtype, context.device)
        func matrix(_ rows: Int, _ columns: Int, isZero: Bool) -> Parameter {
            if isZero { return Parameter(.zeros([rows, columns], dtype: dtype, device: device)) }
            let matrix = Tensor.empty([rows, columns], dtype: dtype, device: device)
            let bound = 1 / Double(columns).squareRoot()
            if device != .meta { matrix.fillUniform(-bound, bound, from: &context.random) }
            return Parameter(matrix)
        }
        if let rank {
            whole = nil
            left = matrix(shape.0, rank, isZero: isZero && !zeroesRight)
            right = matrix(rank, shape.1, isZero: isZero && zeroesRight)
        } else {
            whole = matrix(shape.0, shape.1, isZero: isZero)
            (left, right) = (nil, nil)
        }
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        [(key, whole), (key + "_a", left), (key + "_b", right)].compactMap { name, value in value.map { (name, $0) } }
    }

    var matrix: Tensor {
        if let whole { return whole.tensor }
        guard let left, let right else { return .zeros([0]) }
        return left.tensor.matmul(right.tensor)
    }
}

final class LoKrAdapter: Module, LinearAdapter, AdapterModule {
    private let first: KroneckerFactor
    private let second: KroneckerFactor
    private let scale: Double
    private let dropout: LyCORISDropout

    init(
        first: (Int, Int), second: (Int, Int), firstRank: Int?, secondRank: Int?, scale: Double,
        startsLikeLyCORIS: Bool, dropout: LyCORISDropout, _ context: AttachmentContext
    ) {
        self.first = KroneckerFactor(
            "lokr_w1", first, rank: firstRank, isZero: !startsLikeLyCORIS, zeroesRight: false, context)
        self.second = KroneckerFactor(
            "lokr_w2", second, rank: secondRank, isZero: startsLikeLyCORIS, zeroesRight: true, context)
        (self.scale, self.dropout) = (scale, dropout)
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        first.ownParameters() + second.ownParameters()
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        if dropout.leavesOut() { return base(x) }
        // (w1 ⊗ w2) x = w1 X w2ᵀ with x as the matrix X `[m, n]`, so the Kronecker product is never formed.
        let (w1, w2) = (first.matrix * scale, second.matrix)
        let matrices = x.reshaped(-1, w1.dim(1), w2.dim(1))
        let y = w1.matmul(matrices.matmul(w2.T))
        var shape = x.shape
        shape[shape.count - 1] = w1.dim(0) * w2.dim(0)
        var update = y.reshaped(shape)
        if let mask = dropout.rowMask(shape[shape.count - 1], like: update) { update = update * mask.reshaped(-1) }
        return base(x) + update
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let product = first.matrix.detached().to(.float64).kronecker(second.matrix.detached().to(.float64))
        return (weight.to(.float64) + product * scale).to(weight.dtype)
    }
}
