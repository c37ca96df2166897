import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN

/// A gate per output: y = (1 + g) ⊙ (x Wᵀ + b) with one number per output of a projection.
enum OutputGate: PEFTMethod {
    static let name = "gate"
    static let peftType: String? = "OUTPUT_GATE"
    // Hugging Face PEFT has no such method, so its readers refuse the file.
    static let isReadableByHuggingFace = false
    static let summary = "one gate per output of chosen projections"
    static let defaultLearningRate = 1e-2

    struct Configuration: MethodConfiguration {
        var targets = ["o"]

        init() {}

        // Declared once: `--targets` on the command line, `target_modules` in adapter_config.json, and the help.
        static let fields: [ConfigurationField<Configuration>] = [
            .init("targets", key: "target_modules", .names, help: "names of projections") {
                .array($0.targets.map { .string($0) })
            } write: {
                $0.targets = ($1.array ?? []).compactMap(\.string)
            }
        ]

        func validate() throws {
            guard !targets.isEmpty else { throw PEFTError("no targets were given", remedy: "name a projection") }
        }
    }

    static func label(_ configuration: Configuration) -> String {
        "gates (\(configuration.targets.joined(separator: ", ")))"
    }

    static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        try TargetSelection(targets: configuration.targets).sites(in: model).map { site in
            .linear(site.path, [TensorSpec("gate", [site.outputs])]) { linear, context in
                Gate(outputs: linear.outputs, context)
            }
        }
    }

    final class Gate: Module, LinearAdapter, AdapterModule {
        /// [outputs], zero, so that training starts at the base model.
        @ParameterInfo var gate: Tensor

        init(outputs: Int, _ context: AttachmentContext) {
            _gate = ParameterInfo(wrappedValue: .zeros([outputs], dtype: context.dtype, device: context.device))
        }

        func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor { base(x) * (gate + 1) }

        func merged(into weight: Tensor) throws -> Tensor {
            weight * (gate.detached().to(weight.dtype) + 1).unsqueezed(1)
        }

        func merged(intoBias bias: Tensor) throws -> Tensor { bias * (gate.detached().to(bias.dtype) + 1) }
    }
}
