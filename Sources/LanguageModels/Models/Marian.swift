import PEFTSupport

extension ModelFamily {
    /// Marian (OPUS-MT): a BART with computed positions and without a norm of the embedded input.
    static let marian = ModelFamily(
        name: "marian",
        constructor: .generator { json, family in
            let read = ConfigurationReader(json: json)
            let settings = try BARTConfiguration(
                json,
                BARTVariant(
                    positions: .plain, normsFirst: false, hasEmbeddingNorm: false, vocabularySize: 58101,
                    padToken: 58100, endToken: 0, startToken: 58100), family: family)
            guard try read.boolean("share_encoder_decoder_embeddings", default: true) else {
                throw PEFTError(
                    "config.json: 'share_encoder_decoder_embeddings' is false, which is not supported",
                    remedy: "use a model with one vocabulary for both languages")
            }
            let size = settings.vocabularySize
            guard try read.integer("decoder_vocab_size", .vocabulary, default: size) == size else {
                throw PEFTError(
                    "config.json: 'decoder_vocab_size' isn't 'vocab_size', which is not supported",
                    remedy: "use a model with one vocabulary for both languages")
            }
            return BART(settings)
        },
        modules: .bart, tokenTypes: .none, adapterTargets: .bart, gguf: .none)
}
