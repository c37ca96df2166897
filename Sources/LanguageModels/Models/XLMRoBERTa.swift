extension ModelFamily {
    /// XLM-RoBERTa (Conneau et al. 2020): a RoBERTa under another name.
    static let xlmRoBERTa = ModelFamily(
        name: "xlm-roberta",
        constructor: .encoder { RoBERTa(try BERTConfiguration($0, isRoBERTa: true, family: $1), head: $2) },
        modules: .bert(prefix: "roberta"), tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .allLinear, adaLoRA: .allLinear, ia3: .allLinear, ia3FeedForward: [], norms: ["LayerNorm"]),
        gguf: .none)
}
