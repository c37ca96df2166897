extension ModelFamily {
    /// mT5 (Xue et al. 2021): a T5 v1.1 with other defaults.
    static let mt5 = ModelFamily(
        name: "mt5",
        constructor: .generator { try T5(T5Configuration($0, .mt5, family: $1)) },
        modules: .t5(scaleKey: nil), tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q", "v"]), adaLoRA: .named(["q", "k", "v", "o", "wi_0", "wi_1", "wo"]),
            ia3: .named(["k", "v", "wi_1"]), ia3FeedForward: [], norms: ["layer_norm", "final_layer_norm"]),
        gguf: .none)
}
