import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Wavelet fine-tuning (Bilican et al. 2025, section 3): ΔW = s times the inverse 2-D wavelet transform of a matrix with n
/// trained coefficients at random positions, or that matrix itself.
public enum WaveFT: BuiltInMethod {
    /// Options of ``WaveFT``.
    public struct Configuration: TargetedConfiguration {
        /// Number n of coefficients.
        public var frequencies = 2592
        /// Numbers of coefficients of modules whose path matches a pattern.
        public var frequencyPattern: [String: Double] = [:]
        /// Whether larger projections get more coefficients, n on average.
        public var isProportional = false
        /// Factor s of ΔW.
        public var scaling = 25.0
        var wavelet = Wavelet.db1
        /// Whether the transform is applied.
        public var transforms = true
        /// Seed of the positions.
        public var seed = 777
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
                    flagField(
                        "proportional", key: "proportional_parameters", \.isProportional,
                        help: "more coefficients for larger projections"),
                    numberField("scaling", key: "scaling", \.scaling, -1e9...1e9, help: "factor of ΔW"),
                    .init(
                        "wavelet", key: "wavelet_family", .choice(Wavelet.allCases.map(\.rawValue)),
                        help: "wavelet: db1, db2, db3, sym2 or sym3 (default: db1)"
                    ) {
                        .string($0.wavelet.rawValue)
                    } write: {
                        guard let wavelet = Wavelet(rawValue: try text($1)) else {
                            throw PEFTError(
                                "the wavelet \($1.text(indent: nil)) is not supported",
                                remedy: "use \(Wavelet.allCases.map(\.rawValue).joined(separator: ", "))")
                        }
                        $0.wavelet = wavelet
                    },
                    flagField(
                        "transform", key: "use_idwt", \.transforms,
                        help: "apply the inverse transform; otherwise entries of the weight are trained"),
                    integerField(
                        "position-seed", key: "random_loc_seed", \.seed, 0...Int.max,
                        help: "seed of the coefficients' positions"),
                ] + selectionFields()

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "fan_in_fan_out": [false, true], "init_weights": [true, false],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = WaveFT.Configuration
        package static let name = "waveft"
        package static let peftType: String? = "WAVEFT"
        package static let summary = "trained wavelet coefficients of the weight's change (Bilican et al. 2025)"
        package static let defaultLearningRate = 3e-3

        package static func label(_ configuration: Configuration) -> String {
            "WaveFT n \(configuration.frequencies) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let sites = try sites(configuration, in: model)
            let weights = sites.reduce(0) { $0 + $1.inputs * $1.outputs }
            return try sites.map { site in
                let count: Int
                if configuration.isProportional {
                    let share = Double(site.inputs * site.outputs) / Double(weights)
                    count = max(
                        1, Int((share * Double(configuration.frequencies * sites.count)).rounded(.toNearestOrEven)))
                } else {
                    count = try TargetSelection.count(
                        for: site.path, in: configuration.frequencyPattern, usual: configuration.frequencies)
                }
                try requireEntries(count, of: site, option: "frequencies")
                return .linear(site.path, [.init("waveft_spectrum", [count])]) { linear, context in
                    WaveFTAdapter(linear, configuration, count: count, context)
                }
            }
        }
    }
}

final class WaveFTAdapter: Module, WeightDelta {
    /// `[n]`, initially 0.
    @ParameterInfo(key: "waveft_spectrum") var spectrum: Tensor = .zeros([0])
    /// Flat positions in the matrix of coefficients, int64 `[n]`.
    private let positions: Tensor
    private let wavelet: Wavelet?
    private let scaling: Double
    private let inputs: Int
    private let outputs: Int
    /// Rows and columns of the matrix of coefficients: even, and larger than the weight for longer filters.
    private let size: (rows: Int, columns: Int)

    init(_ linear: Linear, _ configuration: WaveFT.Configuration, count: Int, _ context: AttachmentContext) {
        (scaling, inputs, outputs) = (configuration.scaling, linear.inputs, linear.outputs)
        let wavelet = configuration.transforms ? configuration.wavelet : nil
        let (inputs, outputs) = (linear.inputs, linear.outputs)
        func padded(_ count: Int) -> Int {
            guard let wavelet else { return count }
            let whole = count + wavelet.low.count - 2
            return whole + whole % 2
        }
        let size = (rows: padded(outputs), columns: padded(inputs))
        let chosen = context.randomPositions(count, of: inputs * outputs, seed: configuration.seed)
        if context.device == .meta || size == (outputs, inputs) {
            positions = chosen
        } else {
            // The weight's positions are in the middle of the matrix.
            let (top, left) = ((size.rows - outputs) / 2, (size.columns - inputs) / 2)
            let flat: [Int] = chosen.array()
            positions = Tensor(
                flat.map { ($0 / inputs + top) * size.columns + $0 % inputs + left }, device: context.device)
        }
        (self.wavelet, self.size) = (wavelet, size)
        super.init()
        spectrum = context.zeros([count])
    }

    func delta(_ cast: (Tensor) -> Tensor) -> Tensor {
        let matrix = RandomEntries.matrix(cast(spectrum), at: positions, rows: size.rows, columns: size.columns)
        guard let wavelet else { return matrix * scaling }
        let whole = wavelet.inverse(matrix)
        let (top, left) = ((whole.dim(0) - outputs) / 2, (whole.dim(1) - inputs) / 2)
        return whole.narrowed(axis: 0, top..<(top + outputs)).narrowed(axis: 1, left..<(left + inputs)) * scaling
    }
}
