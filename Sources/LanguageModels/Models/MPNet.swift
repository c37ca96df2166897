extension ModelFamily {
    /// MPNet (Song et al. 2020): a RoBERTa with a relative position bias.
    static let mpnet = ModelFamily(
        name: "mpnet",
        constructor: .encoder { json, family, head in
            var names = BERTVariant.Names()
            (names.q, names.k, names.v) = ("attention.attn.q", "attention.attn.k", "attention.attn.v")
            (names.o, names.attentionNorm) = ("attention.attn.o", "attention.LayerNorm")
            let variant = BERTVariant(
                names: names, positions: .fromTwo, classifierDropoutKey: "hidden_dropout_prob", hasRelativeBias: true,
                vocabularySize: 30_527, types: nil)
            return RoBERTa(try BERTConfiguration(json, variant, family: family), head: head)
        },
        modules: .bert(prefix: "mpnet"), tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q", "v"]), adaLoRA: .named(["q", "v"]), ia3: .named(["k", "v", "output.dense"]),
            ia3FeedForward: ["output.dense"], norms: ["LayerNorm"]),
        gguf: .none)
}
