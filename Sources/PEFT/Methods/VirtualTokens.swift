import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Settings that all methods with virtual tokens share in Hugging Face's files.
public struct VirtualTokens: Sendable {
    /// Number of virtual tokens per stack.
    public var count = 20
    /// Number of stacks of layers with prompts: 1, or 2 in an encoder-decoder; a prompt has `count` rows for each.
    /// `nil` is Hugging Face's choice, 2 in an encoder-decoder.
    public var stacks: Int?
    // The model's sizes, which Hugging Face's files repeat.
    package var size: Int?
    package var heads: Int?
    package var layers: Int?

    /// - Parameter stacks: the stacks of layers with a prompt; `nil` for all.
    public init(stacks: Int? = 1) { self.stacks = stacks }

    var rows: Int { count * (stacks ?? 1) }

    func validate() throws {
        guard (1...100_000).contains(count) else {
            throw PEFTError("num_virtual_tokens is \(count)", remedy: "use a value from 1 to 100000")
        }
        guard stacks.map({ (1...2).contains($0) }) ?? true else {
            throw PEFTError("num_transformer_submodules is \(stacks ?? 0)", remedy: "use 1 or 2")
        }
        if let bad = [size, heads, layers].compactMap({ $0 }).first(where: { $0 < 1 }) {
            throw PEFTError(
                "a model size in adapter_config.json is \(bad)", remedy: "remove it to use the model's own")
        }
    }

    /// The settings with the model's sizes filled in; `heads` and `size` are those of the learned vectors.
    func resolved(for model: ModelOutline, size: Int?, heads: Int? = nil, layers: Int? = nil) -> VirtualTokens {
        // A multimodal model has the keys of its text part in an object of their own.
        let sources = [model.configuration, model.configuration["text_config"]].compactMap(\.self)
        func number(_ keys: [String]) -> Int? {
            sources.lazy.flatMap { source in keys.compactMap { source[$0]?.int } }.first
        }
        var tokens = self
        tokens.stacks = stacks ?? (model.architecture == .encoderDecoder ? 2 : 1)
        tokens.size = self.size ?? size
        tokens.heads =
            self.heads ?? heads
            ?? number(["num_attention_heads", "n_head", "num_heads", "encoder_attention_heads"])
        tokens.layers = self.layers ?? layers ?? number(["num_hidden_layers", "num_layers", "n_layer"])
        return tokens
    }

    /// The input sites that get prompts: the encoder and then the decoder, or the only stack.
    /// - Throws: ``PEFTError`` if the model has no such site, or another hidden size.
    func inputs(of model: ModelOutline, method: String) throws -> [ModelOutline.InputSiteOutline] {
        let sites =
            model.architecture == .encoderDecoder
            ? [StackRole.encoder, .decoder].compactMap { role in model.inputs.first { $0.role == role } }
            : Array(model.inputs.prefix(1))
        guard let first = sites.first else {
            throw PEFTError(
                "this \(model.family) model doesn't support virtual tokens",
                remedy: "use another method than \(method)")
        }
        guard (stacks ?? 1) <= sites.count else {
            throw PEFTError(
                "num_transformer_submodules is 2, but a \(model.family) model has a single stack of layers",
                remedy: "set it to 1")
        }
        guard size == nil || size == first.size else {
            throw PEFTError(
                "the virtual tokens have size \(size ?? 0), but this \(model.family) model's hidden size is \(first.size)",
                remedy: "use the base model that the adapter was trained on")
        }
        return sites
    }
}

extension MethodConfiguration {
    /// The fields that all methods with virtual tokens share.
    static func tokenFields(_ tokens: WritableKeyPath<Self, VirtualTokens> & Sendable) -> [ConfigurationField<Self>] {
        func size(
            _ name: String, key: String, _ help: String, _ path: WritableKeyPath<VirtualTokens, Int?> & Sendable
        ) -> ConfigurationField<Self> {
            .init(name, key: key, .integer(1...1_000_000), help: help) {
                $0[keyPath: tokens][keyPath: path].map { .integer($0) } ?? .null
            } write: {
                $0[keyPath: tokens][keyPath: path] = try integer($1)
            }
        }
        return [
            .init("tokens", key: "num_virtual_tokens", .integer(1...100_000), help: "number of virtual tokens") {
                .integer($0[keyPath: tokens].count)
            } write: {
                $0[keyPath: tokens].count = try integer($1)
            },
            size("submodules", key: "num_transformer_submodules", "stacks of layers with a prompt, 1 or 2", \.stacks),
            size("token-dim", key: "token_dim", "embedding size of a virtual token (the model's)", \.size),
            size("attention-heads", key: "num_attention_heads", "attention heads (the model's)", \.heads),
            size("num-layers", key: "num_layers", "number of layers (the model's)", \.layers),
        ]
    }
}

/// A soft prompt whose embeddings are learned directly: `rows` of `[tokens · stacks, size]`.
final class SoftPrompt: Module, InputAdapter, AdapterModule {
    @ParameterInfo var embeddings: Tensor
    private let rows: Range<Int>

    init(_ embeddings: Tensor, rows: Range<Int>) {
        _embeddings = ParameterInfo(wrappedValue: embeddings, key: "prompt_embeddings")
        self.rows = rows
    }

    func prompt(task: Int) -> Tensor {
        rows.count == embeddings.dim(0) ? embeddings : embeddings.narrowed(axis: 0, rows)
    }
}
