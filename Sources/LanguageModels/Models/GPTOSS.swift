import PEFTSupport

extension ModelFamily {
    /// gpt-oss (OpenAI 2025): attention sinks, sliding windows in every second layer, and experts with biases and a clamped
    /// gate.
    static let gptOSS = ModelFamily(
        name: "gpt_oss", constructor: .generator { try Llama(LlamaConfiguration($0, .gptOSS, family: $1)) },
        modules: .experts(.stacked), tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(feedForward: []), gguf: .architecture(.gptOSS))
}

extension GGUFArchitecture {
    static let gptOSS: GGUFArchitecture = {
        let experts = GGUFExperts(router: "router", normalizes: true, hasSize: true)
        return GGUFArchitecture(
            name: "gpt-oss", modelClass: "GptOssForCausalLM",
            tensors: GGUFTensorNames(
                outer: GGUFTensorNames.llama.outer,
                inner: GGUFTensorNames.experts(experts).inner.filter { $0.file != "ffn_norm" } + [
                    ("post_attention_norm", "post_attention_layernorm")
                ]),
            pairsNeighbors: false, addsOneToNorms: false, yarn: GGUFYaRN(rounds: false), hasRotaryFactors: false,
            windowPeriod: 2, experts: experts,
            forms: [
                .renamed("self_attn.sinks", "attn_sinks.weight"),
                .alternating(
                    "mlp.experts.gate_up_proj", ["ffn_gate_exps.weight", "ffn_up_exps.weight"], axes: 3,
                    isTransposed: true),
                .alternating(
                    "mlp.experts.gate_up_proj_bias", ["ffn_gate_exps.bias", "ffn_up_exps.bias"], axes: 2,
                    isTransposed: false),
                GGUFForm(
                    model: "mlp.experts.down_proj", files: ["ffn_down_exps.weight"], axes: 3,
                    join: { $0[0].transposed().contiguous() }),
                .renamed("mlp.experts.down_proj_bias", "ffn_down_exps.bias", axes: 2),
            ],
            rotary: { _, fields in
                guard fields["rope_scaling"]?["rope_type"] == "yarn", var scaling = fields["rope_scaling"]?.object
                else { return }
                scaling["truncate"] = false
                fields["rope_scaling"] = .object(scaling)
            },
            details: { settings, description in
                guard settings.experts?.gate == .usual else {
                    throw description.refusal("the gates of the experts are clamped otherwise ('swiglu_limit')")
                }
                guard !settings.isTied else { throw description.refusal("the output layer is tied to the embedding") }
                guard settings.hasQKVBias, settings.hasOutputBias else {
                    throw description.refusal("its attention has no biases")
                }
            }
        ) { read, _ in
            try experts.configuration(read, countKey: "num_local_experts").merging([
                "intermediate_size": .integer(try read.count("expert_feed_forward_length")), "attention_bias": true,
                "sliding_window": .integer(try read.count("attention.sliding_window")),
            ]) { $1 }
        }
    }()
}

extension LlamaVariant {
    static let gptOSS = LlamaVariant(
        defaults: [
            "vocab_size": 201_088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36,
            "num_attention_heads": 64, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
            "attention_bias": true, "rope_theta": 150_000.0,
        ],
        keyHeads: 8, headSize: 64, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .none,
        experts: { read, layers in
            let (count, choices) = try ExpertSettings.counts(read, key: "num_local_experts", count: 128, choices: 4)
            return ExpertSettings(
                count: count, choices: choices, feedForwardSize: try read.integer("intermediate_size", .width),
                isTransposed: true,
                gate: ClampedGate(
                    slope: try read.number("swiglu_alpha", default: ClampedGate.usual.slope),
                    limit: try read.number("swiglu_limit", default: ClampedGate.usual.limit)),
                routerKey: "router", isSparse: Array(repeating: true, count: layers),
                loss: try RouterLoss(read, experts: count, choices: choices, coefficient: 0.001))
        },
        rotary: { read, size in
            let isThere = ["rope_scaling", "rope_parameters"].contains { read.json[$0] ?? .null != .null }
            let usual: JSON = [
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
                "original_max_position_embeddings": 4096,
            ]
            let read =
                isThere
                ? read
                : ConfigurationReader(
                    json: read.without("rope_parameters").json, defaults: ["rope_parameters": usual])
            return (try RotaryPositions(read, headSize: size), nil)
        },
        details: { _, _ in LlamaDetails(hasSinks: true) }
    ) { read, layers in
        let window = try read.optionalInteger("sliding_window", default: 128)
        return try AttentionWindows.read(read, layers: layers, window: window) { $0.isMultiple(of: 2) }
    }
}
