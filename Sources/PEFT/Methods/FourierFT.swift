import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Fourier fine-tuning (Gao et al. 2024, eq. 2–4): ΔW = s Re(F⁻¹(E)), the inverse 2-D Fourier transform of a matrix with n
/// trained coefficients at random positions.
public enum FourierFT: BuiltInMethod {
    /// Options of ``FourierFT``.
    public struct Configuration: TargetedConfiguration {
        /// Number n of coefficients.
        public var frequencies = 1000
        /// Numbers of frequencies of modules whose path matches a pattern.
        public var frequencyPattern: [String: Double] = [:]
        /// Factor s of ΔW.
        public var scaling = 150.0
        /// Seed of the positions.
        public var seed = 777
        /// Whether the coefficients start at zero instead of normally distributed.
        public var startsAtZero = false
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    integerField(
                        "frequencies", key: "n_frequency", \.frequencies, 1...1 << 30,
                        help: "trained coefficients per projection"),
                    patternField(
                        "frequency-pattern", key: "n_frequency_pattern", \.frequencyPattern,
                        help: "numbers of coefficients for matching modules: pattern=number,…"),
                    numberField("scaling", key: "scaling", \.scaling, -1e9...1e9, help: "factor of ΔW"),
                    integerField(
                        "position-seed", key: "random_loc_seed", \.seed, 0...Int.max,
                        help: "seed of the coefficients' positions"),
                    flagField(
                        "init-zero", key: "init_weights", \.startsAtZero,
                        help: "start at zero instead of random values"),
                ] + selectionFields()

            package static let neutral: [String: [JSON]] = ["bias": ["none"], "fan_in_fan_out": [false, true]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = FourierFT.Configuration
        package static let name = "fourierft"
        package static let peftType: String? = "FOURIERFT"
        package static let summary = "trained Fourier coefficients of the weight's change (Gao et al. 2024)"
        package static let defaultLearningRate = 3e-2
        package static let start = AdapterStart.changed

        package static func label(_ configuration: Configuration) -> String {
            "FourierFT n \(configuration.frequencies) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try sites(configuration, in: model).map { site in
                let count = try TargetSelection.count(
                    for: site.path, in: configuration.frequencyPattern, usual: configuration.frequencies)
                try requireEntries(count, of: site, option: "frequencies")
                return .linear(site.path, [.init("fourierft_spectrum", [count])]) { linear, context in
                    FourierFTAdapter(linear, configuration, count: count, context)
                }
            }
        }
    }
}

/// Rejects more coefficients than a projection has weights.
func requireEntries(_ count: Int, of site: ModelOutline.LinearSite, option: String) throws {
    guard count <= site.inputs * site.outputs else {
        throw PEFTError(
            "\(count) coefficients exceed the \(site.inputs * site.outputs) weights of \(site.path)",
            remedy: "use --\(option) \(site.inputs * site.outputs) or less")
    }
}

final class FourierFTAdapter: Module, WeightDelta {
    /// `[n]`.
    @ParameterInfo(key: "fourierft_spectrum") var spectrum: Tensor = .zeros([0])
    /// Flat positions, int64 `[n]`.
    private let positions: Tensor
    private let scaling: Double
    private let inputs: Int
    private let outputs: Int

    init(_ linear: Linear, _ configuration: FourierFT.Configuration, count: Int, _ context: AttachmentContext) {
        (scaling, inputs, outputs) = (configuration.scaling, linear.inputs, linear.outputs)
        let total = inputs * outputs
        positions = context.randomPositions(count, of: total, seed: configuration.seed)
        super.init()
        spectrum = configuration.startsAtZero ? context.zeros([count]) : context.normal([count])
    }

    func delta(_ cast: (Tensor) -> Tensor) -> Tensor {
        RandomEntries.matrix(cast(spectrum), at: positions, rows: outputs, columns: inputs).inverseFourierReal()
            * scaling
    }
}
