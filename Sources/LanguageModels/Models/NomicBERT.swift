import PEFTSupport

extension ModelFamily {
    /// NomicBERT (Nussbaum et al. 2024): a BERT with rotary positions, a gated feed-forward network and no biases.
    static let nomicBERT = ModelFamily(
        name: "nomic_bert",
        constructor: .encoder { json, family, head in
            if let key = ["n_embd", "n_layer", "n_head", "n_inner"].first(where: { json[$0] != nil }) {
                throw PEFTError(
                    "config.json has '\(key)' of the original NomicBERT files, which are not supported",
                    remedy: "use files in the format of transformers, with 'hidden_size'")
            }
            var names = BERTVariant.Names()
            (names.layers, names.attention) = ("layers", "self_attn")
            (names.q, names.k, names.v) = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
            (names.o, names.attentionNorm) = ("self_attn.o_proj", "post_attention_layernorm")
            (names.gate, names.up, names.down) = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
            names.feedForwardNorm = "post_mlp_layernorm"
            let variant = BERTVariant(
                names: names, positions: .rotary(base: 1000), hasBiases: false, pools: false, vocabularySize: 30_528,
                activation: "silu", dropout: 0, attentionDropout: 0, positionCount: 2048)
            return BERT(try BERTConfiguration(json, variant, family: family), head: head)
        },
        modules: ModuleNames(
            prefix: "nomic_bert", embedding: "embeddings.word_embeddings", output: .none, attention: ["self_attn"],
            feedForward: ["mlp", "pooler"], unquantized: []),
        tokenTypes: .embedded(key: "type_vocab_size", default: 2),
        adapterTargets: .likeLlama(norms: ["LayerNorm", "post_attention_layernorm", "post_mlp_layernorm"]),
        gguf: .none)
}
