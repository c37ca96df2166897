import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Context-aware prompt tuning (Blau et al. 2024): virtual tokens e + δ that begin as the embeddings e of in-context
/// examples. Only δ is trained, and before each pass it is projected to a norm of at most ε, which depends on the token's
/// type: part of a template, of an input or of a label (4, 8, …), whose δ stays zero.
///
/// In Hugging Face PEFT the loss may also include the prompt's own labels, with weights that decay with their distance.
/// Here it is the loss of the targets alone, so prompts with labels are read, but have nothing to train.
public enum CPT: BuiltInMethod {
    /// Options of ``CPT``.
    public struct Configuration: BuiltInConfiguration {
        /// Token ids of the prompt.
        public var ids: [Int] = [0]
        /// Type of each token: 1 or 3 modulo 4 in a template, 2 in an input, 0 in a label or if it isn't trained.
        public var types: [Int] = []
        /// ε of input tokens, for a hidden size of 2048.
        public var epsilon = 0.1
        /// ε of template tokens, for a hidden size of 2048.
        public var formatEpsilon = 0.1
        // Settings that are only stored.
        package var mask: [Int] = []
        package var lossType = "none"
        package var decay = 1.0
        package var tokenizer: String?
        package var tokens = VirtualTokens()

        /// The default options.
        public init() {}

        /// The type of each token, 1 if none is given.
        var allTypes: [Int] { types.isEmpty ? ids.map { _ in 1 } : types }
        /// Whether a token of the prompt is a label, which belongs to the loss in Hugging Face PEFT.
        var hasLabels: Bool { allTypes.contains { $0 > 0 && $0 % 4 == 0 } }

        package func check() throws {
            guard !ids.isEmpty, ids.count <= 100_000, ids.allSatisfy({ $0 >= 0 }) else {
                throw PEFTError("'cpt_token_ids' is not a list of token ids", remedy: "use one or more ids")
            }
            for (name, list) in [("cpt_tokens_type_mask", types), ("cpt_mask", mask)]
            where !list.isEmpty && list.count != ids.count {
                throw PEFTError(
                    "'\(name)' has \(list.count) entries for \(ids.count) tokens", remedy: "use one entry per token")
            }
            guard types.allSatisfy({ $0 >= 0 }) else {
                throw PEFTError("'cpt_tokens_type_mask' has a negative type", remedy: "use types from 0")
            }
            guard epsilon >= 0, formatEpsilon >= 0, epsilon.isFinite, formatEpsilon.isFinite else {
                throw PEFTError("an epsilon of CPT is negative", remedy: "use a value of at least 0")
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            private static func list(
                _ name: String, _ key: String, _ path: WritableKeyPath<Configuration, [Int]> & Sendable, help: String,
                _ shown: @escaping @Sendable (Configuration) -> [Int]
            ) -> ConfigurationField<Configuration> {
                .init(name, key: key, .integers, help: help) {
                    .array(shown($0).map { .integer($0) })
                } write: {
                    $0[keyPath: path] = try integers($1)
                }
            }

            package static let fields: [ConfigurationField<Configuration>] =
                [
                    list("cpt-tokens", "cpt_token_ids", \.ids, help: "token ids of the prompt") { $0.ids },
                    list("cpt-types", "cpt_tokens_type_mask", \.types, help: "type of each token of the prompt") {
                        $0.allTypes
                    },
                    list("cpt-mask", "cpt_mask", \.mask, help: "mask of the prompt, which is only stored") {
                        $0.mask.isEmpty ? $0.ids.map { _ in 1 } : $0.mask
                    },
                    .init(
                        "cpt-loss-weights", key: "opt_weighted_loss_type", .choice(["none", "decay"]),
                        help: "weights of the prompt's labels in the loss, which are only stored"
                    ) {
                        .string($0.lossType)
                    } write: {
                        $0.lossType = try text($1)
                    },
                    numberField(
                        "cpt-loss-decay", key: "opt_loss_decay_factor", \.decay, 0...1e6,
                        help: "decay of these weights, which is only stored"),
                    numberField(
                        "cpt-epsilon", key: "opt_projection_epsilon", \.epsilon, 0...1e6,
                        help: "largest norm of the change of an input token"),
                    numberField(
                        "cpt-format-epsilon", key: "opt_projection_format_epsilon", \.formatEpsilon, 0...1e6,
                        help: "largest norm of the change of a template token"),
                    .init(
                        "cpt-tokenizer", key: "tokenizer_name_or_path", .text, help: "tokenizer's name, only stored"
                    ) {
                        $0.tokenizer.map { .string($0) } ?? .null
                    } write: {
                        $0.tokenizer = try text($1)
                    },
                ] + tokenFields(\.tokens)
            package static let neutral: [String: [JSON]] = ["modules_to_save": [[]]]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = CPT.Configuration
        package static let name = "cpt"
        package static let peftType: String? = "CPT"
        package static let summary = "a prompt of in-context examples, trained within bounds (Blau et al. 2024)"
        package static let defaultLearningRate = 1e-4
        package static let start = AdapterStart.changed
        package static let isMergeable = false

        package static func label(_ configuration: Configuration) -> String {
            "CPT, \(counted(configuration.ids.count, "token"))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.tokens.count = configuration.ids.count
            configuration.tokens = configuration.tokens.resolved(for: model, size: model.inputs.first?.size)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try configuration.validate()
            guard model.architecture == .decoder, model.head.task == .causalLM else {
                throw PEFTError(
                    "CPT needs a decoder-only model that generates text, not this \(model.family) model",
                    remedy: "use the method prompt")
            }
            let own = resolved(configuration, for: model)
            let site = try own.tokens.inputs(of: model, method: name)[0]
            return [
                .input(
                    site.path, [.init("prompt_embeddings", [own.ids.count, site.size], isTrained: !own.hasLabels)]
                ) { input, context in
                    try ContextPrompt(own, size: input.size, context)
                }
            ]
        }
    }
}

/// Virtual tokens with a bounded trained part.
final class ContextPrompt: Module, InputAdapter, AdapterModule {
    /// e `[tokens, size]`, not trained.
    private var embeddings: Tensor
    /// δ `[tokens, size]`, initially 0.
    @ParameterInfo(key: "prompt_embeddings") private var delta: Tensor = .zeros([0])
    /// The largest norm of each token's δ, `[tokens]`.
    private let bounds: Tensor
    /// 1 for tokens that are trained and 0 for others, `[tokens, 1]`.
    private let mask: Tensor
    private let isTrained: Bool

    init(_ configuration: CPT.Configuration, size: Int, _ context: AttachmentContext) throws {
        let (types, count) = (configuration.allTypes, configuration.ids.count)
        isTrained = !configuration.hasLabels
        embeddings = try PromptStart.vectors(of: configuration.ids.map { [$0] }, size: size, context)
        let root = (Double(size) / 2048).squareRoot()
        let bounds = types.map { type -> Float in
            // As small as in Hugging Face PEFT for tokens that aren't trained.
            guard type > 0, type % 4 != 0 else { return 1e-10 }
            return Float((type % 4 == 2 ? configuration.epsilon : configuration.formatEpsilon) * root)
        }
        let (dtype, device) = (context.dtype, context.device)
        self.bounds = Tensor(bounds, device: .cpu).to(dtype).to(device)
        mask = Tensor(types.map { Float($0 % 4 == 0 ? 0 : 1) }, shape: [count, 1], device: .cpu).to(dtype).to(device)
        super.init()
        delta = .zeros([count, size], dtype: dtype, device: device)
    }

    var adapterParameters: [AdapterParameter] {
        parameters().map { AdapterParameter($0.path, $0.parameter, isTrained: isTrained) }
    }

    func prompt(task: Int) -> Tensor {
        withoutGradients { delta.detached().copy(from: projected()) }
        // The gradient of tokens that aren't trained is zero.
        return embeddings + delta * mask + (delta * (mask * -1 + 1)).detached()
    }

    /// δ with norms of at most ε.
    private func projected() -> Tensor {
        let own = delta.detached()
        let norms = own.squared().sum(axes: [1]).sqrt()
        // ε / max(‖δ‖, ε), which is 1 for zero too.
        let longest = (norms - bounds).atLeast(0) + bounds
        return own * (bounds / longest).unsqueezed(1)
    }

    func storedTensors() -> [String: Tensor] {
        withoutGradients { ["prompt_embeddings": embeddings + projected()] }
    }

    func load(_ tensors: [String: Tensor]) throws {
        guard let value = tensors["prompt_embeddings"] else { return }
        embeddings = value.to(embeddings.dtype).to(embeddings.device)
        delta.copy(from: .zeros(like: delta))
    }
}
