import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Generalized LoRA (Chavan et al. 2023): W' = W + W ∘ A + B and b' = b + b ∘ D + E + W C. Each of A to E is a
/// low-rank matrix, a vector per output, one number, or absent.
public enum GLoRA: BuiltInMethod {
    /// How a tensor of the method is parameterized.
    public enum Form: String, Sendable, CaseIterable {
        /// X_d X_u
        case lora
        /// One number per output (of C: per input).
        case vector
        /// One number.
        case constant
        case none
    }

    /// Options of ``GLoRA``.
    public struct Configuration: TargetedConfiguration {
        /// Rank of the low-rank forms.
        public var rank = 8
        /// Form of A and B.
        public var weights = Form.lora
        /// Form of C: `lora`, `vector` or `none`.
        public var coupling = Form.lora
        /// Form of D and E: `vector`, `constant` or `none`.
        public var biases = Form.constant
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        private static func formField(
            _ name: String, key: String, _ path: WritableKeyPath<Configuration, Form> & Sendable, _ forms: [Form],
            help: String
        ) -> ConfigurationField<Configuration> {
            .init(name, key: key, .choice(forms.map(\.rawValue)), help: help) {
                .string($0[keyPath: path].rawValue)
            } write: {
                guard let form = Form(rawValue: try text($1)), forms.contains(form) else {
                    throw PEFTError(
                        "\($1.text(indent: nil)) is not a form",
                        remedy: "use one of \(forms.map(\.rawValue).joined(separator: ", "))")
                }
                $0[keyPath: path] = form
            }
        }

        package func check() throws {
            guard weights != .none || coupling != .none || biases != .none else {
                throw PEFTError("all forms are none", remedy: "choose a form for the weights or the biases")
            }
            try selection.validate()
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of the low-rank forms"),
                    formField(
                        "weight-form", key: "config_A_B", \.weights, [.lora, .vector, .constant, .none],
                        help: "form of the weight's scale and shift"),
                    formField(
                        "coupling-form", key: "config_C", \.coupling, [.lora, .vector, .none],
                        help: "form of the vector by which the weight changes the bias"),
                    formField(
                        "bias-form", key: "config_D_E", \.biases, [.vector, .constant, .none],
                        help: "form of the bias's scale and shift"),
                ] + targetFields(\.selection)

            package static let neutral: [String: [JSON]] = ["bias": ["none"], "init_weights": [true, false]]
        }
    }

    /// One of A to E.
    struct Path {
        let letter: String
        let form: Form
        let tensors: [TensorSpec]
        /// Standard bound of X_u's initial values.
        let fan: Int
    }

    private static func paths(_ configuration: Configuration, outputs: Int, inputs: Int, hasBias: Bool) -> [Path] {
        func path(_ letter: String, _ form: Form, rows: Int, columns: Int, isFlat: Bool = false) -> Path {
            let key = "glora_\(letter)"
            let tensors: [TensorSpec] =
                switch form {
                case .lora:
                    [
                        .init("\(key).Xd", [rows, configuration.rank]),
                        .init("\(key).Xu", [configuration.rank, columns]),
                    ]
                case .vector: [.init("\(key).X", isFlat ? [rows] : [rows, 1])]
                case .constant: [.init("\(key).X", [1])]
                // Hugging Face's files contain zeros for what is absent.
                case .none: [.init("\(key).zeros", isFlat ? [rows] : [rows, columns], isTrained: false)]
                }
            return Path(letter: letter, form: form, tensors: tensors, fan: columns)
        }
        let coupling = hasBias ? configuration.coupling : .none
        let biases = hasBias ? configuration.biases : .none
        return [
            path("A", configuration.weights, rows: outputs, columns: inputs),
            path("B", configuration.weights, rows: outputs, columns: inputs),
            path("C", coupling, rows: inputs, columns: 1),
            path("D", biases, rows: outputs, columns: 1, isFlat: true),
            path("E", biases, rows: outputs, columns: 1, isFlat: true),
        ]
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = GLoRA.Configuration
        package static let name = "glora"
        package static let peftType: String? = "GLORA"
        package static let summary = "scales and shifts of weights and biases, each of low rank (Chavan et al. 2023)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "GLoRA r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let sites = try resolved(configuration, for: model).selection.sites(in: model)
            guard configuration.weights != .none || sites.contains(where: \.hasBias) else {
                throw PEFTError(
                    "GLoRA without weights has nothing to train: the targets of this \(model.family) model have no biases",
                    remedy: "choose a --weight-form")
            }
            return sites.map { site in
                let paths = paths(configuration, outputs: site.outputs, inputs: site.inputs, hasBias: site.hasBias)
                return .linear(site.path, paths.flatMap(\.tensors)) { linear, context in
                    GLoRAAdapter(linear, paths, context)
                }
            }
        }
    }
}

final class GLoRAAdapter: Module, LinearAdapter, AdapterModule {
    private let paths: [GLoRA.Path]
    private let parameterList: [AdapterParameter]
    private let values: [String: Parameter]
    private let hasBias: Bool
    /// W when the adapter was attached; adapters below may be activated or merged later.
    private let original: any LinearWeight

    /// All tensors are initially 0 except X_u, so that training starts at the base model.
    init(_ linear: Linear, _ paths: [GLoRA.Path], _ context: AttachmentContext) {
        self.paths = paths
        hasBias = linear.bias != nil
        original = linear.weight.snapshot()
        parameterList = paths.flatMap { path in
            path.tensors.map { spec in
                let isUp = spec.key.hasSuffix(".Xu")
                let value = isUp ? context.random(spec.shape, fan: path.fan) : context.zeros(spec.shape)
                return AdapterParameter(spec.key, Parameter(value), isTrained: spec.isTrained)
            }
        }
        values = Dictionary(parameterList.map { ($0.key, $0.parameter) }, uniquingKeysWith: { first, _ in first })
        super.init()
    }

    var adapterParameters: [AdapterParameter] { parameterList }

    /// A tensor of the method, which broadcasts to its full shape; `nil` if it is absent.
    private func value(_ letter: String, _ type: DType?) -> Tensor? {
        guard let path = paths.first(where: { $0.letter == letter }), path.form != .none else { return nil }
        let parts = path.tensors.compactMap { values[$0.key]?.tensor.cast(type) }
        return parts.count == 2 ? parts[0].matmul(parts[1]) : parts.first
    }

    /// W ∘ A + B `[out, in]`; `nil` if both are absent.
    private func delta(_ type: DType?) -> Tensor? {
        guard let a = value("A", type), let b = value("B", type) else { return nil }
        return original.dense(as: a.dtype) * a + b
    }

    /// b ∘ D + E + W C `[out]`; `nil` if there is nothing to add.
    private func shift(of bias: Tensor, _ type: DType?) -> Tensor? {
        var sum: Tensor?
        if let d = value("D", type), let e = value("E", type) { sum = bias.to(d.dtype) * d + e }
        if let c = value("C", type) {
            // C has a column for `vector` and `lora` alike.
            let coupled = original.dense(as: c.dtype).matmul(c).reshaped(-1)
            sum = sum.map { $0 + coupled } ?? coupled
        }
        return sum
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        var y = base(x)
        if let delta = delta(nil) { y = y + Functions.linear(x, delta) }
        if hasBias, let bias = base.bias, let shift = shift(of: bias, nil) { y = y + shift }
        return y
    }

    func merged(into weight: Tensor) throws -> Tensor {
        guard let delta = delta(.float64) else { return weight }
        return (weight.to(.float64) + delta).to(weight.dtype)
    }

    func merged(intoBias bias: Tensor) throws -> Tensor {
        guard let shift = shift(of: bias.to(.float64), .float64) else { return bias }
        return (bias.to(.float64) + shift).to(bias.dtype)
    }
}
