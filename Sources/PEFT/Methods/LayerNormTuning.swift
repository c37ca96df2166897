import LanguageModels
import PEFTSupport

/// Trains the normalization layers (Zhao et al. 2024, Tuning LayerNorm in Attention).
public enum LayerNormTuning: BuiltInMethod {
    /// Options of ``LayerNormTuning``.
    public struct Configuration: BuiltInConfiguration {
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws { try selection.validate() }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.selection.allowsUnusedTargets = true
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] = targetFields(
                \.selection, help: "names of norms (default: those of the layers and the final norm)")
            package static let neutral: [String: [JSON]] = [:]
        }
    }

    private static func norms(of model: ModelOutline) -> [ModelOutline.ParameterSite] {
        model.parameters.filter { $0.component == .norm }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = LayerNormTuning.Configuration
        package static let name = "layernorm"
        package static let peftType: String? = "LN_TUNING"
        package static let summary = "train only the normalization layers (Zhao et al. 2024)"
        package static let defaultLearningRate = 1e-2

        package static func label(_ configuration: Configuration) -> String { "layer norms" }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            if configuration.selection.targets.isEmpty {
                let all = TargetSelection.leaves(norms(of: model).map(\.owner))
                configuration.selection.targets = all.filter(model.modelFamily.adapterTargets.norms.contains)
            }
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let norms = norms(of: model)
            var owners: [String] = []
            for norm in norms where owners.last != norm.owner { owners.append(norm.owner) }
            let chosen = Set(try resolved(configuration, for: model).selection.paths(in: model, among: owners))
            return norms.filter { chosen.contains($0.owner) }.map {
                .train($0.path, shape: $0.shape, key: "\(AdapterKeys.prefix)\($0.owner).ln_tuning_layers.\($0.leaf)")
            }
        }
    }
}
