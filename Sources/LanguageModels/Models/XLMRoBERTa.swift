extension ModelFamily {
    /// XLM-RoBERTa (Conneau et al. 2020): a RoBERTa under another name.
    static let xlmRoBERTa = ModelFamily(
        name: "xlm-roberta",
        constructor: .encoder { RoBERTa(try BERTConfiguration($0, isRoBERTa: true, family: $1), head: $2) },
        modules: .bert(prefix: "roberta"), tokenTypes: .none,
        adapterTargets: ModelFamily.roberta.adapterTargets,
        gguf: .none)
}
