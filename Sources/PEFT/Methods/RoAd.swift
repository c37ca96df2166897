import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Rotation adaptation (Liao and Monz 2024, section 3.2): the outputs of a projection are rotated and scaled in pairs,
/// y' = R y with 2 × 2 blocks α [[cos θ, −sin θ], [sin θ, cos θ]].
public enum RoAd: BuiltInMethod {
    /// How many angles and scales a pair has.
    public enum Variant: String, CaseIterable, Sendable {
        case one = "road_1"
        case two = "road_2"
        case four = "road_4"

        /// Angles of a projection with this many outputs.
        func count(_ outputs: Int) -> Int {
            switch self {
            case .one: outputs / 2
            case .two: outputs
            case .four: outputs * 2
            }
        }
    }

    /// Options of ``RoAd``.
    public struct Configuration: TargetedConfiguration {
        /// How outputs are paired and rotated.
        public var variant = Variant.one
        /// Outputs of a group; the first is paired with the one half a group later, and so on.
        public var groupSize = 64
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws {
            guard groupSize.isMultiple(of: 2) else {
                throw PEFTError("the group size \(groupSize) is odd", remedy: "set --group-size to an even number")
            }
            try selection.validate()
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    .init(
                        "variant", key: "variant", .choice(Variant.allCases.map(\.rawValue)),
                        help: "angles and scales per pair of outputs: road_1, road_2 or road_4 (default: road_1)"
                    ) {
                        .string($0.variant.rawValue)
                    } write: {
                        guard let variant = Variant(rawValue: try text($1)) else {
                            throw PEFTError(
                                "\($1.text(indent: nil)) is not a variant of RoAd",
                                remedy: "use road_1, road_2 or road_4")
                        }
                        $0.variant = variant
                    },
                    integerField(
                        "group-size", key: "group_size", \.groupSize, 2...65536,
                        help: "outputs of a group, whose halves are paired"),
                ] + selectionFields(hasExclusions: false, hasLayers: false)

            package static let neutral: [String: [JSON]] = ["init_weights": [true, false]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = RoAd.Configuration
        package static let name = "road"
        package static let peftType: String? = "ROAD"
        package static let summary = "rotation and scaling of pairs of outputs (Liao and Monz 2024)"
        package static let defaultLearningRate = 5e-3

        package static func label(_ configuration: Configuration) -> String {
            "RoAd \(configuration.variant.rawValue.suffix(1)) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try sites(configuration, in: model).map { site in
                try requireDivisor(configuration.groupSize, of: site, inputs: false, option: "group-size")
                let count = configuration.variant.count(site.outputs)
                return .linear(site.path, [.init("road_theta", [count]), .init("road_alpha", [count])]) {
                    _, context in
                    RoAdAdapter(configuration, count: count, context)
                }
            }
        }
    }
}

final class RoAdAdapter: Module, LinearAdapter, AdapterModule {
    /// θ, initially 0.
    @ParameterInfo(key: "road_theta") var angles: Tensor = .zeros([0])
    /// α, initially 1.
    @ParameterInfo(key: "road_alpha") var scales: Tensor = .zeros([0])
    private let variant: RoAd.Variant
    private let group: Int

    init(_ configuration: RoAd.Configuration, count: Int, _ context: AttachmentContext) {
        (variant, group) = (configuration.variant, configuration.groupSize)
        super.init()
        angles = context.zeros([count])
        scales = context.ones([count])
    }

    /// α cos θ and α sin θ of each output, `[out]`.
    private func factors(_ angles: Tensor, _ scales: Tensor) -> (cosines: Tensor, sines: Tensor) {
        switch variant {
        case .one:
            func repeated(_ x: Tensor) -> Tensor {
                let halves = x.reshaped(-1, 1, group / 2)
                return Tensor.concatenated([halves, halves], axis: 1).reshaped(-1)
            }
            return (repeated(scales * angles.cos()), repeated(scales * angles.sin()))
        case .two: return (scales * angles.cos(), scales * angles.sin())
        case .four:
            func part(_ x: Tensor, _ index: Int) -> Tensor {
                x.reshaped(-1, 2, group).narrowed(axis: 1, index..<(index + 1)).reshaped(-1)
            }
            return (part(scales, 0) * part(angles, 0).cos(), part(scales, 1) * part(angles, 1).sin())
        }
    }

    /// R y for y `[..., out]`.
    private func rotated(_ y: Tensor, _ factors: (cosines: Tensor, sines: Tensor)) -> Tensor {
        let halves = y.reshaped(-1, 2, group / 2)
        let (first, second) = (halves.narrowed(axis: 1, 0..<1), halves.narrowed(axis: 1, 1..<2))
        let turned = Tensor.concatenated([second * -1, first], axis: 1).reshaped(y.shape)
        return y * factors.cosines + turned * factors.sines
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor { rotated(base(x), factors(angles, scales)) }

    private var wideFactors: (cosines: Tensor, sines: Tensor) {
        factors(angles.detached().to(.float64), scales.detached().to(.float64))
    }

    func merged(into weight: Tensor) throws -> Tensor {
        rotated(weight.to(.float64).T.contiguous(), wideFactors).T.contiguous().to(weight.dtype)
    }

    func merged(intoBias bias: Tensor) throws -> Tensor { rotated(bias.to(.float64), wideFactors).to(bias.dtype) }
}
