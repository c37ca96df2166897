import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Decompositional efficient fine-tuning: y = x W'ᵀ + b with W' = (I − P_proj) W + s Q R. The output's part in a trained
/// subspace is removed and another one injected: P `[out, r]` spans the subspace, R `[r, in]` is what is injected. The
/// projector P_proj is P relu(P)ᵀ with Q = P, or Q Qᵀ with the orthonormal Q of P's QR decomposition. Without R the
/// method is PaRa (Chen et al. 2024).
public enum DEFT: BuiltInMethod {
    /// Options of ``DEFT``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r; at most the number of outputs.
        public var rank = 8
        /// Whether the projector is orthogonal (`qr`) instead of P relu(P)ᵀ (`relu`).
        public var isOrthogonal = false
        /// α; the injection is scaled by α / r, or by 1 if `nil` or 0.
        public var alpha: Double?
        /// Whether nothing is injected (PaRa).
        public var removesOnly = false
        /// Dropout probability of the injection's input.
        public var dropout = 0.0
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        func rank(for outputs: Int) -> Int { min(rank, outputs) }

        func scale(for outputs: Int) -> Double {
            guard let alpha, alpha != 0 else { return 1 }
            return alpha / Double(rank(for: outputs))
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of the removed and of the injected part"),
                    .init(
                        "decomposition", key: "decomposition_method", .choice(["relu", "qr"]),
                        help: "projector of the removed part: relu or qr, which is orthogonal"
                    ) {
                        $0.isOrthogonal ? "qr" : "relu"
                    } write: {
                        guard let name = $1.string, ["relu", "qr"].contains(name) else {
                            throw PEFTError(
                                "\($1.text(indent: nil)) is not a decomposition", remedy: "use relu or qr")
                        }
                        $0.isOrthogonal = name == "qr"
                    },
                    .init(
                        "alpha", key: "alpha", .number(0...1e6),
                        help: "alpha; the injection is scaled by alpha / rank (no scale)"
                    ) {
                        $0.alpha.map { .wholeOr($0) } ?? .null
                    } write: {
                        $0.alpha = try number($1)
                    },
                    flagField("para", key: "para", \.removesOnly, help: "inject nothing (PaRa)"),
                    numberField(
                        "dropout", key: "deft_dropout", \.dropout, 0...0.99, help: "dropout on the injection's input"),
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "fan_in_fan_out": [false, true], "init_weights": [true, false],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = DEFT.Configuration
        package static let name = "deft"
        package static let peftType: String? = "DEFT"
        package static let summary =
            "a trained subspace is removed from the output and another part injected (DEFT, PaRa)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "\(configuration.removesOnly ? "PaRa" : "DEFT") r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try resolved(configuration, for: model).selection.sites(in: model).map { site in
                let rank = configuration.rank(for: site.outputs)
                let injection = configuration.removesOnly ? [] : [TensorSpec("deft_R", [rank, site.inputs])]
                return .linear(site.path, [.init("deft_P", [site.outputs, rank])] + injection) { linear, context in
                    DEFTAdapter(linear, configuration, context)
                }
            }
        }
    }
}

final class DEFTAdapter: Module, LinearAdapter, AdapterModule {
    /// P `[out, r]`.
    private let directions: Parameter
    /// R `[r, in]`, initially relu(P)ᵀ W / s or Qᵀ W / s, so that training starts at the base model.
    private let injection: Parameter?
    private let isOrthogonal: Bool
    private let scale: Double
    private let dropoutRate: Double

    init(_ linear: Linear, _ configuration: DEFT.Configuration, _ context: AttachmentContext) {
        (isOrthogonal, dropoutRate) = (configuration.isOrthogonal, configuration.dropout)
        scale = configuration.scale(for: linear.outputs)
        let rank = configuration.rank(for: linear.outputs)
        directions = Parameter(context.random([linear.outputs, rank], fan: nil) * 0.02)
        injection = configuration.removesOnly ? nil : Parameter(context.zeros([rank, linear.inputs]))
        super.init()
        guard let injection, context.device != .meta, !context.isLoading else { return }
        withoutGradients {
            let right = projector(nil).right
            injection.tensor.copy(from: right.T.matmul(linear.weight.dense(as: context.dtype)) / scale)
        }
    }

    var adapterParameters: [AdapterParameter] {
        [AdapterParameter("deft_P", directions)] + (injection.map { [AdapterParameter("deft_R", $0)] } ?? [])
    }

    /// Q and the other factor of P_proj = Q rightᵀ, both `[out, r]`.
    private func projector(_ type: DType?) -> (left: Tensor, right: Tensor) {
        let p = directions.tensor.cast(type)
        guard isOrthogonal else { return (p, p.atLeast(0)) }
        let q = p.qr().q
        return (q, q)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (left, right) = projector(nil)
        let y = base(x)
        let product = base.bias.map { y - $0 } ?? y
        var coordinates = -product.matmul(right)
        if let injection {
            let (probability, seed) = DropoutScope.draw(dropoutRate)
            let dropped = probability > 0 ? Functions.dropout(x, probability: probability, seed: seed) : x
            coordinates = coordinates + Functions.linear(dropped, injection.tensor) * scale
        }
        return y + coordinates.matmul(left.T)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let (left, right) = projector(.float64)
        let whole = weight.to(.float64)
        var coordinates = -right.T.matmul(whole)
        if let injection { coordinates = coordinates + injection.tensor.cast(.float64) * scale }
        return (whole + left.matmul(coordinates)).to(weight.dtype)
    }
}
