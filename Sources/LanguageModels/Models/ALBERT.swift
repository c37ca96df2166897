extension ModelFamily {
    /// ALBERT (Lan et al. 2020): a BERT whose layers share their weights in groups.
    static let albert = ModelFamily(
        name: "albert",
        constructor: .encoder { json, family, head in
            var names = BERTVariant.Names()
            (names.projection, names.pooler) = ("encoder.embedding_hidden_mapping_in", "pooler")
            (names.q, names.k, names.v) = ("attention.query", "attention.key", "attention.value")
            (names.o, names.attentionNorm) = ("attention.dense", "attention.LayerNorm")
            (names.up, names.down, names.feedForwardNorm) = ("ffn", "ffn_output", "full_layer_layer_norm")
            let variant = BERTVariant(
                names: names, dropsFeedForward: false, alwaysProjects: true,
                classifierDropoutKey: "classifier_dropout_prob", sharesLayers: true, vocabularySize: 30_000,
                size: 4096, embeddingSize: 128, heads: 64, feedForwardSize: 16_384, activation: "gelu_new",
                dropout: 0, attentionDropout: 0, classifierDropout: 0.1)
            return BERT(try BERTConfiguration(json, variant, family: family), head: head)
        },
        modules: ModuleNames(
            prefix: "albert", embedding: "embeddings.word_embeddings", output: .none, attention: ["attention"],
            feedForward: ["ffn", "ffn_output", "embedding_hidden_mapping_in", "pooler"], unquantized: []),
        tokenTypes: .embedded(key: "type_vocab_size", default: 2),
        adapterTargets: AdapterTargets(
            lora: .named(["query", "value"]), adaLoRA: .named(["query", "value"]),
            ia3: .named(["key", "value", "ffn_output"]), ia3FeedForward: ["ffn_output"],
            norms: ["LayerNorm", "full_layer_layer_norm"]),
        gguf: .none)
}
