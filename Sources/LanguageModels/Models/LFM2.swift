import Foundation
import PEFTSupport

extension ModelFamily {
    /// LFM2 (Liquid AI 2025): most layers are gated short convolutions, the others grouped-query attentions.
    static let lfm2 = ModelFamily(
        name: "lfm2",
        constructor: .generator { json, family in
            let text = try LFM2.configuration(json, isDense: true)
            return try Llama(LlamaConfiguration(json, text: text, .lfm2, family: family))
        },
        modules: .lfm2(experts: nil), tokenTypes: .none,
        // Hugging Face has no defaults for these families; these are Llama's, and the projections of the convolutions' inputs.
        adapterTargets: .lfm2(feedForward: ["w2"]), gguf: .architecture(.lfm2))
}

enum LFM2 {
    /// `config.json` with the names of other families, and with the size of the feed-forward network that older keys give.
    ///
    /// - Parameter isDense: whether the size is adjusted, as in the family without experts.
    static func configuration(_ json: JSON, isDense: Bool) throws -> JSON {
        let read = ConfigurationReader(json: json)
        var fields = json.object ?? [:]
        fields["tie_word_embeddings"] = .bool(
            try read.boolean("tie_embedding", default: read.boolean("tie_word_embeddings", default: true)))
        // The family has neither of these keys.
        (fields["hidden_act"], fields["attention_dropout"]) = ("silu", 0)
        guard isDense else { return .object(fields) }
        let older = try read.integer("intermediate_size", .width, default: 12288)
        var size = try read.integer("block_ff_dim", .width, default: older)
        let factor = try read.optionalNumber("block_ffn_dim_multiplier", default: 1)
        let multiple = try read.integer("block_multiple_of", .width, default: 256)
        if try read.boolean("block_auto_adjust_ff_dim", default: true) {
            size = Int(Double(2 * size) / 3)
            if let factor {
                let scaled = min(factor * Double(size), Double(ConfigurationReader.Size.width.rawValue))
                size = (Int(scaled) + multiple - 1) / multiple * multiple
            }
        }
        fields["intermediate_size"] = .integer(size)
        return .object(fields)
    }

    /// The convolutions of `layer_types`, or of the layers that `full_attn_idxs` doesn't list.
    static func layers(_ read: ConfigurationReader, layers: Int) throws -> HybridLayers {
        let settings = GatedConvolution.Settings(
            hiddenSize: try read.integer("hidden_size", .width),
            width: try read.integer(
                "conv_L_cache", default: 3, in: 1...1_024),
            hasBias: try read.boolean("conv_bias", default: false))
        let listed = try attentions(read)
        let types = try HybridLayers.types(read, layers: layers, allowed: ["conv", "full_attention"])
        return HybridLayers(
            mixer: .convolution(settings),
            layers: types.map { $0.map { $0 == "conv" } }
                ?? (0..<layers).map { !(listed?.contains($0) ?? true) })
    }

    /// The layers with an attention that older files list; `nil` for all.
    private static func attentions(_ read: ConfigurationReader) throws -> Set<Int>? {
        guard let value = read.json["full_attn_idxs"], value != .null else { return nil }
        let list = (value.array ?? []).compactMap(\.int)
        guard list.count == value.array?.count else {
            throw PEFTError(
                "config.json: 'full_attn_idxs' is \(value.text(indent: nil))", remedy: "use a list of layers")
        }
        return Set(list)
    }

    /// RoPE with the families' base.
    @Sendable static func rotary(_ read: ConfigurationReader, headSize: Int) throws -> (
        full: RotaryPositions, local: RotaryPositions?
    ) {
        (try RotaryPositions(read, headSize: headSize, base: 1_000_000), nil)
    }
}

extension LlamaVariant {
    static let lfm2 = LlamaVariant(
        defaults: [
            "vocab_size": 65536, "hidden_size": 2560, "norm_eps": 1e-5, "max_position_embeddings": 128_000,
        ],
        keyHeads: 8, headSize: nil, qkvBias: .never, outputBias: .never, feedForwardBias: .never,
        queryNorms: .eachHead, blockNorms: .lfm2, feedForwardKey: "feed_forward", normKey: "embedding_norm",
        epsilonKey: "norm_eps", attentionNames: .lfm2, rotary: LFM2.rotary,
        details: { read, layers in
            LlamaDetails(hybrid: try LFM2.layers(read, layers: layers), feedForwardForm: .lfm2)
        }, windows: AttentionWindows.none)
}

extension BlockNorms {
    static let lfm2 = BlockNorms(beforeAttention: "operator_norm", beforeFeedForward: "ffn_norm")
}

extension GroupedQueryAttention.Names {
    static let lfm2 = Self(output: "out_proj", norms: ("q_layernorm", "k_layernorm"))
}

extension GatedFeedForward.Form {
    static let lfm2 = Self(gate: "w1", up: "w3", down: "w2")
}

extension ModuleNames {
    static func lfm2(experts: ExpertNames?) -> ModuleNames {
        ModuleNames(
            prefix: "model", embedding: "embed_tokens", output: .projection("lm_head"),
            attention: ["self_attn", "conv"], feedForward: ["feed_forward"],
            unquantized: experts == nil ? [] : ["gate"], experts: experts)
    }
}

extension AdapterTargets {
    static func lfm2(feedForward: [String]) -> AdapterTargets {
        let projections = ["q_proj", "v_proj", "in_proj"]
        return AdapterTargets(
            lora: .named(projections), adaLoRA: .named(projections), ia3: .named(projections + feedForward),
            ia3FeedForward: feedForward, norms: ["operator_norm", "ffn_norm", "embedding_norm"])
    }
}
