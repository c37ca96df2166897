import PEFTSupport

extension ModelFamily {
    /// Mistral (Jiang et al. 2023): a Llama with sliding windows in all layers.
    static let mistral = ModelFamily(
        name: "mistral", constructor: .generator { try Llama(LlamaConfiguration($0, .mistral, family: $1)) },
        modules: .llama, tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["k_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: ["input_layernorm", "post_attention_layernorm", "norm"]),
        gguf: .writtenAs(.llama))
}

extension LlamaVariant {
    static let mistral = LlamaVariant(
        keyHeads: 8, headSize: nil, qkvBias: .never, outputBias: .never, feedForwardBias: .never, queryNorms: .none
    ) { read, layers in
        let window = try read.optionalInteger("sliding_window", default: 4096)
        let windows = [Int?](repeating: window, count: layers)
        guard try AttentionWindows.read(read, layers: layers, window: window, slides: { _ in true }) == windows
        else {
            throw PEFTError(
                "config.json: 'layer_types' mixes layer types, but all layers of a Mistral are alike",
                remedy: "remove 'layer_types'")
        }
        return windows
    }
}
