import Torch

extension ModelFamily {
    /// ELECTRA (Clark et al. 2020): a BERT whose embeddings may have another size, with a head of two layers.
    static let electra = ModelFamily(
        name: "electra",
        constructor: .encoder { json, family, head in
            let variant = BERTVariant(
                pools: false, headActivation: .gelu, size: 256, embeddingSize: 128, heads: 4, feedForwardSize: 1024)
            return RoBERTa(try BERTConfiguration(json, variant, family: family), head: head)
        },
        modules: ModuleNames(
            prefix: "electra", embedding: "embeddings.word_embeddings", output: .none, attention: ["attention"],
            feedForward: ["intermediate", "output", "embeddings_project"], unquantized: []),
        tokenTypes: .embedded(key: "type_vocab_size", default: 2),
        adapterTargets: ModelFamily.bert.adapterTargets,
        gguf: .none)
}
