import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Bias-efficient fine-tuning (2025, arXiv:2509.15974): y = x Wᵀ + b + d with a trained vector d `[out]` on value
/// projections.
public enum BEFT: BuiltInMethod {
    /// Options of ``BEFT``.
    public struct Configuration: TargetedConfiguration {
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                targetFields(\.selection, help: "target modules (value projections)")

            package static let neutral: [String: [JSON]] = ["init_weights": [true, false]]
        }
    }

    /// Names of value projections, as in Hugging Face PEFT's table.
    private static let values = ["v_proj", "v", "value", "v_lin"]

    package enum Implementation: TargetedMethod {
        package typealias Configuration = BEFT.Configuration
        package static let name = "beft"
        package static let peftType: String? = "BEFT"
        package static let summary = "a trained bias on the value projections (arXiv:2509.15974)"
        package static let defaultLearningRate = 1e-2

        package static func label(_ configuration: Configuration) -> String {
            "BEFT (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            if configuration.selection.targets.isEmpty {
                let leaves = Set(TargetSelection.leaves(model.linears.map(\.path)))
                configuration.selection.targets = values.filter(leaves.contains)
            }
            configuration.selection = configuration.selection.resolved(for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try resolved(configuration, for: model).selection.sites(in: model).map { site in
                .linear(site.path, [.init("beft_bias", [1, site.outputs])]) { linear, context in
                    BEFTAdapter(linear, context)
                }
            }
        }
    }
}

final class BEFTAdapter: Module, LinearAdapter, AdapterModule {
    /// d `[1, out]`, initially 0.
    @ParameterInfo(key: "beft_bias") var shift: Tensor = .zeros([0])
    private let isOverBias: Bool

    init(_ linear: Linear, _ context: AttachmentContext) {
        isOverBias = linear.bias != nil
        super.init()
        shift = context.zeros([1, linear.outputs])
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor { base(x) + shift.reshaped(-1) }

    func merged(into weight: Tensor) throws -> Tensor {
        guard isOverBias else {
            throw PEFTError(
                "a trained bias can't be merged into a projection without one", remedy: "keep it as an adapter")
        }
        return weight
    }

    func merged(intoBias bias: Tensor) throws -> Tensor { bias + shift.detached().to(bias.dtype).reshaped(-1) }
}
