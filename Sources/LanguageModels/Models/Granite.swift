import PEFTSupport

extension ModelFamily {
    /// Granite 3 (IBM 2024): a Llama whose embeddings, sublayers' outputs, attention scores and logits are scaled, as in
    /// μP (Yang et al. 2022).
    static let granite = ModelFamily(
        name: "granite", constructor: .generator { try Llama(LlamaConfiguration($0, .granite, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(),
        gguf: .architecture(.granite))
}

extension LlamaVariant {
    static let granite = LlamaVariant(
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .configured("mlp_bias"), queryNorms: .none,
        details: { read, _ in try multipliers(read) }, windows: AttentionWindows.none)

    static func multipliers(_ read: ConfigurationReader) throws -> LlamaDetails {
        LlamaDetails(
            inputScale: try read.number("embedding_multiplier", default: 1),
            residualScale: try read.number("residual_multiplier", default: 1),
            attentionScale: try read.number("attention_multiplier", default: 1),
            outputScale: 1 / (try read.optionalNumber("logits_scaling", default: 1) ?? 1))
    }
}

extension GGUFArchitecture {
    static let granite = GGUFArchitecture(
        name: "granite", modelClass: "GraniteForCausalLM", tensors: .llama, pairsNeighbors: true,
        addsOneToNorms: false,
        details: { settings, description in
            let details = settings.details
            description.add("attention.scale", .number(Float(details.attentionScale ?? 1)))
            description.add("embedding_scale", .number(Float(details.inputScale)))
            description.add("residual_scale", .number(Float(details.residualScale)))
            description.add("logit_scale", .number(Float(1 / details.outputScale)))
        }
    ) { read, sizes in
        guard read["rope.scaling.finetuned"]?.flag ?? true else {
            throw PEFTError(
                "\(read.file.url.path) has no RoPE ('granite.rope.scaling.finetuned'), which is not supported",
                remedy: "use another model")
        }
        return try read.graniteFactors(sizes).merging([
            "hidden_act": "silu", "attention_bias": .bool(read.hasTensor("blk.0.attn_q.bias")),
            "mlp_bias": .bool(read.hasTensor("blk.0.ffn_up.bias")),
        ]) { $1 }
    }
}

extension GGUFSettings {
    /// The keys of `config.json` for the factors of all Granite families.
    func graniteFactors(_ sizes: GGUFSizes) throws -> [String: JSON] {
        // llama.cpp scales the scores by headSize^−½ if the file has no scale.
        let usual = 1 / Double(sizes.headSize).squareRoot()
        return [
            "attention_multiplier": .number(try number("attention.scale", default: usual)),
            "embedding_multiplier": .number(try number("embedding_scale", default: 1)),
            "residual_multiplier": .number(try number("residual_scale", default: 1)),
            "logits_scaling": .number(try number("logit_scale", default: 1)),
        ]
    }
}
