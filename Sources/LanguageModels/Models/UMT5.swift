extension ModelFamily {
    /// UMT5 (Chung et al. 2023): an mT5 with position biases in each layer.
    static let umt5 = ModelFamily(
        name: "umt5",
        constructor: .generator { try T5(T5Configuration($0, .umt5, family: $1)) },
        modules: .t5(scaleKey: "scale_decoder_outputs"), tokenTypes: .none,
        adapterTargets: ModelFamily.mt5.adapterTargets,
        gguf: .none)
}
