extension ModelFamily {
    /// XLM-RoBERTa (Conneau et al. 2020): a RoBERTa under another name.
    static let xlmRoBERTa = ModelFamily(
        name: "xlm-roberta",
        constructor: .encoder { RoBERTa(try BERTConfiguration($0, .roberta, family: $1), head: $2) },
        modules: .bert(prefix: "roberta"), tokenTypes: .none,
        adapterTargets: ModelFamily.roberta.adapterTargets,
        gguf: .none)
}

extension ModelFamily {
    /// XLM-RoBERTa-XL (Goyal et al. 2021): an XLM-RoBERTa with norms before the sublayers.
    static let xlmRoBERTaXL = ModelFamily(
        name: "xlm-roberta-xl",
        constructor: .encoder { json, family, head in
            var names = BERTVariant.Names()
            (names.attentionNorm, names.feedForwardNorm) = ("attention.self_attn_layer_norm", "LayerNorm")
            let variant = BERTVariant(
                names: names, positions: .afterPadding, normsFirst: true, dropsFeedForward: false,
                vocabularySize: 250_880, size: 2560, layers: 36, heads: 32, feedForwardSize: 10_240,
                positionCount: 514, types: 1, epsilon: 1e-5)
            return RoBERTa(try BERTConfiguration(json, variant, family: family), head: head)
        },
        modules: .bert(prefix: "roberta"), tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: ModelFamily.roberta.adapterTargets.lora, adaLoRA: ModelFamily.roberta.adapterTargets.adaLoRA,
            ia3: ModelFamily.roberta.adapterTargets.ia3, ia3FeedForward: ["output.dense"],
            norms: ["self_attn_layer_norm", "LayerNorm"]),
        gguf: .none)
}
