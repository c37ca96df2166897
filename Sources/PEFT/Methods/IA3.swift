import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// (IA)³ (Liu et al. 2022, eq. 1–3): learned vectors that rescale keys, values and the input of the feed-forward
/// network's output projection.
public enum IA3: BuiltInMethod {
    /// Options of ``IA3``.
    public struct Configuration: BuiltInConfiguration {
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])
        /// Targets whose input is rescaled instead of their output.
        public var feedForward: [String] = []
        /// Whether `feedForward` is one regular expression.
        public var isFeedForwardPattern = false

        /// The default options.
        public init() {}

        package func check() throws { try selection.validate() }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.selection.allowsUnusedTargets = true
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] =
                targetFields(
                    \.selection, help: "target modules (default: keys, values and the feed-forward output projection)"
                )
                + [
                    .init(
                        "feedforward", key: "feedforward_modules", .names,
                        help: "targets whose input is rescaled (default: the feed-forward output projection)"
                    ) {
                        $0.isFeedForwardPattern
                            ? .string($0.feedForward.first ?? "")
                            : .array($0.feedForward.sorted().map { .string($0) })
                    } write: {
                        $0.feedForward = try $1.string.map { [$0] } ?? names($1)
                        $0.isFeedForwardPattern = $1.string != nil
                    }
                ]

            package static let neutral: [String: [JSON]] = [
                "init_ia3_weights": [true], "fan_in_fan_out": [false, true],
            ]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = IA3.Configuration
        package static let name = "ia3"
        package static let peftType: String? = "IA3"
        package static let summary =
            "learned vectors that rescale keys, values and feed-forward activations (Liu et al. 2022)"
        package static let defaultLearningRate = 1e-2

        package static func label(_ configuration: Configuration) -> String {
            "IA³ (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            let defaults = model.modelFamily.adapterTargets
            if configuration.selection.targets.isEmpty, case .named(let names) = defaults.ia3 {
                configuration.selection.targets = names
                if configuration.feedForward.isEmpty { configuration.feedForward = defaults.ia3FeedForward }
            }
            configuration.selection = configuration.selection.resolved(for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let configuration = resolved(configuration, for: model)
            let pattern =
                try configuration.isFeedForwardPattern
                ? TargetSelection.wholeMatch(configuration.feedForward.first ?? "", option: "feedforward") : nil
            return try configuration.selection.sites(in: model).map { site in
                let isFeedForward =
                    try pattern.map { try $0.matches(site.path) }
                    // Hugging Face PEFT compares suffixes of any length here: o names wo, too.
                    ?? configuration.feedForward.contains { site.path.hasSuffix($0) }
                let shape = isFeedForward ? [1, site.inputs] : [site.outputs, 1]
                return .linear(site.path, [.init("ia3_l", shape)]) { _, context in
                    IA3Adapter(shape: shape, scalesInput: isFeedForward, context)
                }
            }
        }
    }
}

final class IA3Adapter: Module, WeightAdapter, AdapterModule {
    /// `[outputs, 1]`, or `[1, inputs]` if the input is rescaled; initially 1.
    @ParameterInfo(key: "ia3_l") var scales: Tensor = .zeros([0])
    private let scalesInput: Bool

    init(shape: [Int], scalesInput: Bool, _ context: AttachmentContext) {
        self.scalesInput = scalesInput
        super.init()
        scales = .ones(shape, dtype: context.dtype, device: context.device)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let vector = scales.reshaped(-1)
        return scalesInput ? base(x * vector) : base(x) * vector
    }

    var rowBranch: RowBranch? { scalesInput ? RowBranch(inputGain: scales) : RowBranch(outputGain: scales) }

    func merged(into weight: Tensor) throws -> Tensor { weight * scales.detached().to(weight.dtype) }

    func merged(intoBias bias: Tensor) throws -> Tensor {
        scalesInput ? bias : bias * scales.detached().to(bias.dtype).reshaped(-1)
    }
}
