import PEFTSupport
import Torch

/// What llama.cpp computes of a family of ``LayerNormDecoder``, whose other models can't be written. Its GELU is always the
/// tanh approximation, as its converter accepts.
struct GGUFDecoderForm: Sendable {
    /// The activation of models that it converts.
    let activation: Activation
    /// How the sublayers of a block are connected.
    var residuals: [LayerNormDecoderConfiguration.Residual] = [.sequential]
    /// Whether queries, keys and values have biases; `nil` if they may.
    var hasInputBias: Bool?
    /// Whether the attention's output and the feed-forward network have biases.
    let hasBiases: Bool
    /// Whether the output layer may be tied to the embedding.
    let allowsTying: Bool
    /// Norms of queries and keys that models may have.
    var headNorm: HeadNorm.Kind?
    /// Whether attention has linear biases in place of positions.
    var hasLinearBiases = false
    /// Adds the metadata of what only this family has.
    var details: @Sendable (LayerNormDecoderConfiguration, inout GGUFDescription) -> Void = { _, _ in }

    /// - Throws: ``PEFTError`` for a model that llama.cpp would compute differently, with the difference.
    fileprivate func check(_ settings: LayerNormDecoderConfiguration, _ description: GGUFDescription) throws {
        let attention = settings.attention
        func require(_ condition: Bool, _ difference: String) throws {
            guard condition else { throw description.refusal(difference) }
        }
        try require(settings.activation == activation, "its activation isn't the usual one of the family")
        try require(
            residuals.contains(settings.residual), "attention and feed-forward network are connected in another way")
        let input = hasInputBias ?? attention.hasInputBias
        try require(
            attention.hasInputBias == input && attention.hasOutputBias == hasBiases
                && settings.hasFeedForwardBias == hasBiases,
            "its projections have \(hasBiases ? "no biases" : "biases")")
        try require(allowsTying || !settings.isTied, "the output layer is tied to the embedding")
        try require(attention.headNorm == nil || attention.headNorm?.kind == headNorm, "queries and keys have norms")
        try require(
            (settings.linearBiases != nil) == hasLinearBiases,
            "attention has \(hasLinearBiases ? "no linear biases" : "linear biases (ALiBi)")")
        try require(attention.window == nil, "layers use sliding-window attention")
        try require(
            attention.heads * attention.headSize == settings.hiddenSize,
            "the heads aren't as wide as the hidden states")
    }
}

extension LayerNormDecoder: GGUFWritable {
    var ggufSizes: GGUFSizes {
        let attention = settings.attention
        return GGUFSizes(
            layers: settings.layers, hiddenSize: settings.hiddenSize, feedForwardSize: settings.feedForwardSize,
            heads: attention.heads, keyHeads: attention.keyHeads, headSize: attention.headSize,
            epsilon: settings.epsilon)
    }

    func describe(in description: inout GGUFDescription) throws {
        guard let architecture = modelFamily.gguf.written, let form = architecture.decoder else { return }
        try form.check(settings, description)
        let rotary = settings.attention.rotary
        description.addSizes(
            of: self, rotated: rotary?.settings.size ?? 0, epsilonKey: architecture.epsilon.file)
        if let rotary {
            try description.addRotary(rotary)
            guard description.factors == nil else {
                throw description.refusal("its RoPE has the type '\(rotary.settings.kind)'")
            }
        }
        form.details(settings, &description)
    }
}

extension GGUFSettings {
    /// - Throws: ``PEFTError`` if there are fewer key-value heads than heads, which the family doesn't have.
    func requireEqualHeads(_ sizes: GGUFSizes) throws {
        guard sizes.keyHeads == sizes.heads else {
            throw PEFTError(
                "\(file.url.path) has \(sizes.keyHeads) key-value heads and \(sizes.heads) heads, which is not supported",
                remedy: "the file is damaged; download it again")
        }
    }
}

extension GGUFTensorNames {
    /// The names of a family of ``LayerNormDecoder``.
    /// - Parameters:
    ///   - others: names that differ from these, or that only this family has.
    static func decoder(
        _ names: (stack: String, layers: String, embedding: String, finalNorm: String), attention: String,
        qkv: String? = nil, output: String, norms: [(file: String, model: String)], up: String, down: String,
        outer: [(file: String, model: String)] = [], others: [(file: String, model: String)] = [],
        stacks: [(file: String, model: String)] = []
    ) -> GGUFTensorNames {
        typealias Names = [(file: String, model: String)]
        let usual: Names = [
            ("token_embd", "\(names.stack).\(names.embedding)"), ("output_norm", "\(names.stack).\(names.finalNorm)"),
            ("output", "lm_head"),
        ]
        let inputs: Names =
            if let qkv {
                [("attn_qkv", "\(attention).\(qkv)")]
            } else {
                ["q", "k", "v"].map { ("attn_\($0)", "\(attention).\($0)_proj") }
            }
        let outputs: Names = [
            ("attn_output", "\(attention).\(output)"), ("ffn_up", "mlp.\(up)"), ("ffn_down", "mlp.\(down)"),
        ]
        return GGUFTensorNames(
            outer: usual + outer, inner: norms + inputs + outputs + others,
            layers: "\(names.stack).\(names.layers).", stacks: stacks)
    }
}
