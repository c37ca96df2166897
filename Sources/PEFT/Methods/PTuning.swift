import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// P-tuning (Liu et al. 2021): a soft prompt computed from learned embeddings by a prompt encoder, an MLP or a
/// bidirectional LSTM with an MLP, which makes it easier to train.
///
/// The file contains the encoder's output, as Hugging Face's does; a loaded adapter continues as that prompt, without
/// the encoder.
public enum PTuning: BuiltInMethod {
    /// Options of ``PTuning``.
    public struct Configuration: BuiltInConfiguration {
        /// The virtual tokens.
        public var tokens = VirtualTokens()
        /// Whether the prompt encoder is a bidirectional LSTM instead of an MLP.
        public var usesLSTM = false
        /// Hidden size of the encoder; the model's if `nil`.
        public var hiddenSize: Int?
        /// Layers of the LSTM.
        public var layers = 2
        /// Dropout between the layers of the LSTM.
        public var dropout = 0.0

        /// The default options.
        public init() {}

        package func check() throws {
            try tokens.validate()
            guard hiddenSize.map({ $0 >= 1 }) ?? true, (1...64).contains(layers) else {
                throw PEFTError(
                    "the prompt encoder has \(layers) layers of hidden size \(hiddenSize ?? 0)",
                    remedy: "use 1 or more for both")
            }
            guard dropout >= 0, dropout < 1 else {
                throw PEFTError("the dropout is \(dropout)", remedy: "use a value of at least 0 and below 1")
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.tokens = VirtualTokens(stacks: nil)
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] =
                tokenFields(\.tokens) + [
                    .init(
                        "encoder", key: "encoder_reparameterization_type", .choice(["MLP", "LSTM"]),
                        help: "prompt encoder: MLP or LSTM"
                    ) {
                        .string($0.usesLSTM ? "LSTM" : "MLP")
                    } write: {
                        let word = try text($1)
                        guard ["MLP", "LSTM"].contains(word) else {
                            throw PEFTError("unknown prompt encoder '\(word)'", remedy: "use MLP or LSTM")
                        }
                        $0.usesLSTM = word == "LSTM"
                    },
                    .init(
                        "hidden-size", key: "encoder_hidden_size", .integer(1...1_000_000),
                        help: "hidden size of the prompt encoder (default: the model's)"
                    ) {
                        $0.hiddenSize.map { .integer($0) } ?? .null
                    } write: {
                        $0.hiddenSize = try integer($1)
                    },
                    .init("encoder-layers", key: "encoder_num_layers", .integer(1...64), help: "LSTM layers") {
                        .integer($0.layers)
                    } write: {
                        $0.layers = try integer($1)
                    },
                    .init(
                        "encoder-dropout", key: "encoder_dropout", .number(0...0.99),
                        help: "dropout between LSTM layers"
                    ) {
                        .number($0.dropout)
                    } write: {
                        $0.dropout = try number($1)
                    },
                ]
            package static let neutral: [String: [JSON]] = ["modules_to_save": [[]]]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = PTuning.Configuration
        package static let name = "p-tuning"
        package static let peftType: String? = "P_TUNING"
        package static let summary = "a soft prompt from a trained prompt encoder (Liu et al. 2021)"
        package static let defaultLearningRate = 3e-3
        package static let start = AdapterStart.changed
        package static let isMergeable = false

        package static func label(_ configuration: Configuration) -> String {
            "P-tuning, \(counted(configuration.tokens.count, "token")) (\(configuration.usesLSTM ? "LSTM" : "MLP"))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.tokens = configuration.tokens.resolved(for: model, size: model.inputs.first?.size)
            configuration.hiddenSize = configuration.hiddenSize ?? configuration.tokens.size
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let resolved = resolved(configuration, for: model)
            let tokens = resolved.tokens
            let site = try tokens.inputs(of: model, method: name)[0]
            let stored = TensorSpec(PromptEncoder.output, [tokens.rows, site.size], isTrained: false)
            let shapes = PromptEncoder.shapes(resolved, size: site.size)
            let own = shapes.map { TensorSpec($0.key, $0.shape, isStored: false) }
            return [
                .input(site.path, [stored] + own) { input, context in
                    guard !context.isLoading else {
                        return SoftPrompt(
                            .zeros([tokens.rows, input.size], dtype: context.dtype, device: context.device),
                            rows: 0..<tokens.count)
                    }
                    return PromptEncoder(resolved, size: input.size, context)
                }
            ]
        }
    }
}

/// The prompt encoder: embeddings `[rows, size]` -> prompt `[rows, size]`.
final class PromptEncoder: Module, InputAdapter, AdapterModule {
    static let output = "prompt_embeddings"
    private let tensors: [(key: String, parameter: Parameter)]
    private let byName: [String: Parameter]
    /// Stands for the prompt among the file's tensors; filled when the file is written.
    private let made: Parameter
    private let configuration: PTuning.Configuration
    private let hidden: Int

    /// Names and shapes as in PyTorch, with n for initial values uniform in ±1/√n; `nil` for N(0, 1).
    static func shapes(_ configuration: PTuning.Configuration, size: Int) -> [(key: String, shape: [Int], fan: Int?)]
    {
        let hidden = configuration.hiddenSize ?? size
        var shapes: [(key: String, shape: [Int], fan: Int?)] = [
            ("embedding.weight", [configuration.tokens.rows, size], nil)
        ]
        func linear(_ name: String, _ inputs: Int, _ outputs: Int) {
            shapes.append(("\(name).weight", [outputs, inputs], inputs))
            shapes.append(("\(name).bias", [outputs], inputs))
        }
        guard configuration.usesLSTM else {
            linear("mlp_head.0", size, hidden)
            linear("mlp_head.2", hidden, hidden)
            linear("mlp_head.4", hidden, size)
            return shapes
        }
        for layer in 0..<configuration.layers {
            for suffix in ["", "_reverse"] {
                let inputs = layer == 0 ? size : 2 * hidden
                shapes.append(("lstm_head.weight_ih_l\(layer)\(suffix)", [4 * hidden, inputs], hidden))
                shapes.append(("lstm_head.weight_hh_l\(layer)\(suffix)", [4 * hidden, hidden], hidden))
                shapes.append(("lstm_head.bias_ih_l\(layer)\(suffix)", [4 * hidden], hidden))
                shapes.append(("lstm_head.bias_hh_l\(layer)\(suffix)", [4 * hidden], hidden))
            }
        }
        linear("mlp_head.0", 2 * hidden, 2 * hidden)
        linear("mlp_head.2", 2 * hidden, size)
        return shapes
    }

    init(_ configuration: PTuning.Configuration, size: Int, _ context: AttachmentContext) {
        self.configuration = configuration
        hidden = configuration.hiddenSize ?? size
        tensors = Self.shapes(configuration, size: size).map { key, shape, fan in
            (key, Parameter(context.random(shape, fan: fan)))
        }
        byName = Dictionary(tensors.map { ($0.key, $0.parameter) }, uniquingKeysWith: { $1 })
        made = Parameter(
            .zeros([configuration.tokens.rows, size], dtype: context.dtype, device: context.device))
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] { tensors }

    var adapterParameters: [AdapterParameter] {
        [AdapterParameter(Self.output, made, isTrained: false)]
            + tensors.map { AdapterParameter($0.key, $0.parameter, isStored: false) }
    }

    func storedTensors() -> [String: Tensor] { [Self.output: withoutGradients { vectors() }] }

    func prompt(task: Int) -> Tensor {
        let vectors = vectors()
        let count = configuration.tokens.count
        return count == vectors.dim(0) ? vectors : vectors.narrowed(axis: 0, 0..<count)
    }

    private func tensor(_ name: String) -> Tensor? { byName[name]?.tensor }

    private func linear(_ x: Tensor, _ name: String) -> Tensor {
        guard let weight = tensor("\(name).weight") else { return x }
        return Functions.linear(x, weight, bias: tensor("\(name).bias"))
    }

    private func vectors() -> Tensor {
        guard var x = tensor("embedding.weight") else { return made.tensor }
        guard configuration.usesLSTM else {
            x = Activation.relu(linear(x, "mlp_head.0"))
            x = Activation.relu(linear(x, "mlp_head.2"))
            return linear(x, "mlp_head.4")
        }
        x = x.unsqueezed(1)
        for layer in 0..<configuration.layers {
            if layer > 0 { x = dropout(x, configuration.dropout) }
            let weights = ["", "_reverse"].flatMap { suffix in
                ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].compactMap {
                    tensor("lstm_head.\($0)_l\(layer)\(suffix)")
                }
            }
            x = Functions.lstm(x, weights: weights, hidden: hidden, layers: 1, bidirectional: true)
        }
        x = x.reshaped(-1, 2 * hidden)
        return linear(Activation.relu(linear(x, "mlp_head.0")), "mlp_head.2")
    }
}

extension AttachmentContext {
    /// Uniform in ±1/√fan, as PyTorch's default initialization, or N(0, 1).
    func random(_ shape: [Int], fan: Int?) -> Tensor {
        let tensor = Tensor.zeros(shape, dtype: dtype, device: device)
        guard device != .meta else { return tensor }
        if let fan {
            let bound = 1 / Double(fan).squareRoot()
            tensor.fillUniform(-bound, bound, from: &random)
        } else {
            tensor.fillNormal(from: &random)
        }
        return tensor
    }
}
