import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// LLaMA-Adapter (Zhang et al. 2023): in the topmost layers, every token also attends to a learned prompt P `[tokens,
/// size]`, whose keys and values are the layer's own projections of it. The result is multiplied by a gate that is
/// initially zero, before the output projection.
///
/// As in Hugging Face PEFT, the prompt's attention has a softmax of its own, and its keys aren't rotated.
public enum AdaptionPrompt: BuiltInMethod {
    /// Options of ``AdaptionPrompt``.
    public struct Configuration: BuiltInConfiguration {
        /// Number of virtual tokens per layer.
        public var tokens = 10
        /// Number of topmost layers; all if `nil`.
        public var layers: Int?

        /// The default options.
        public init() {}

        package func check() throws {
            guard layers.map({ $0 >= 1 }) ?? true else {
                throw PEFTError("adapter_layers is \(layers ?? 0)", remedy: "use 1 or more")
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] = [
                integerField("tokens", key: "adapter_len", \.tokens, 1...100_000, help: "virtual tokens per layer"),
                .init(
                    "top-layers", key: "adapter_layers", .integer(1...100_000), help: "number of topmost layers (all)"
                ) {
                    $0.layers.map { .integer($0) } ?? .null
                } write: {
                    $0.layers = try integer($1)
                },
            ]

            package static let neutral: [String: [JSON]] = ["target_modules": ["self_attn"]]
        }
    }

    /// The attentions of a model's layers, with their paths.
    private static func attentions(_ model: ModelOutline) -> [(path: String, site: ModelOutline.KeyValueSiteOutline)]
    {
        model.keyValues.map { site in
            (site.path.split(separator: ".").dropLast().joined(separator: "."), site)
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = AdaptionPrompt.Configuration
        package static let name = "llama-adapter"
        package static let peftType: String? = "ADAPTION_PROMPT"
        package static let summary = "a gated attention to a learned prompt in the topmost layers (Zhang et al. 2023)"
        package static let defaultLearningRate = 1e-2
        package static let isMergeable = false

        package static func label(_ configuration: Configuration) -> String {
            "LLaMA-Adapter, \(counted(configuration.tokens, "token"))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.layers = configuration.layers ?? max(1, model.keyValues.count)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            guard ["llama", "mistral"].contains(model.family) else {
                throw PEFTError(
                    "LLaMA-Adapter supports llama and mistral models, not \(model.family)",
                    remedy: "use another method, such as prefix")
            }
            let all = attentions(model)
            let count = resolved(configuration, for: model).layers ?? all.count
            guard count <= all.count else {
                throw PEFTError(
                    "adapter_layers is \(count), but this \(model.family) model has \(counted(all.count, "layer"))",
                    remedy: "use \(all.count) or less")
            }
            let linears = Dictionary(model.linears.map { ($0.path, $0) }, uniquingKeysWith: { first, _ in first })
            return try all.suffix(count).map { path, site in
                guard let keys = linears["\(path).k_proj"], linears["\(path).v_proj"] != nil,
                    let output = linears["\(path).o_proj"]
                else {
                    throw PEFTError(
                        "'\(path)' has no separate projections", remedy: "use another method, such as prefix")
                }
                guard !output.hasBias else {
                    throw PEFTError(
                        "'\(path).o_proj' has a bias, which Hugging Face PEFT would add twice",
                        remedy: "use another method, such as prefix")
                }
                let key = "\(AdapterKeys.prefix)\(path)"
                return .keyValues(
                    site.path,
                    [
                        .init("\(key).adaption_gate", [1]),
                        .init("\(key).adaption_prompt", [1, configuration.tokens, keys.inputs]),
                    ]
                ) { place, context in
                    let modules = context.model.namedModules().filter {
                        ["\(path).k_proj", "\(path).v_proj"].contains($0.path)
                    }.compactMap { $0.module as? Linear }
                    guard modules.count == 2 else {
                        throw PEFTError("'\(path)' has no projections", remedy: "use the model that was planned for")
                    }
                    return AdaptionPromptAdapter(
                        keys: modules[0], values: modules[1], key: key, tokens: configuration.tokens,
                        heads: place.heads,
                        context)
                }
            }
        }
    }
}

final class AdaptionPromptAdapter: Module, KeyValueAdapter, AdapterModule {
    /// P `[1, tokens, size]`, initially N(0, 1).
    private let prompt: Parameter
    /// `[1]`, initially 0, so that training starts at the base model.
    private let factor: Parameter
    private let key: String
    private let heads: Int
    /// The layer's projections of keys and values, without adapters over them.
    private let project: (_ prompt: Tensor) -> (keys: Tensor, values: Tensor)

    init(keys: Linear, values: Linear, key: String, tokens: Int, heads: Int, _ context: AttachmentContext) {
        (self.key, self.heads) = (key, heads)
        prompt = Parameter(context.random([1, tokens, keys.inputs], fan: nil))
        factor = Parameter(context.zeros([1]))
        project = { prompt in
            (
                keys.weight.project(prompt, bias: keys.bias?.tensor),
                values.weight.project(prompt, bias: values.bias?.tensor)
            )
        }
        super.init()
    }

    var adapterParameters: [AdapterParameter] {
        [AdapterParameter("\(key).adaption_gate", factor), AdapterParameter("\(key).adaption_prompt", prompt)]
    }

    var gate: Tensor? { factor.tensor }

    func keysAndValues() -> (keys: Tensor, values: Tensor) {
        let tokens = prompt.tensor.reshaped(prompt.tensor.dim(1), -1)
        let (keys, values) = project(tokens)
        return (keys.reshaped(tokens.dim(0), heads, -1), values.reshaped(tokens.dim(0), heads, -1))
    }
}
