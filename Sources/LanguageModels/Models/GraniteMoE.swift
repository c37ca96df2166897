import PEFTSupport

extension ModelFamily {
    /// The mixtures of experts of Granite 3 (IBM 2024), scaled as Granite.
    static let graniteMoE = ModelFamily(
        name: "granitemoe", constructor: .generator { try Llama(LlamaConfiguration($0, .graniteMoE, family: $1)) },
        modules: .experts(.granite), tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(feedForward: []), gguf: .architecture(.graniteMoE))
}

extension GGUFArchitecture {
    static let graniteMoE: GGUFArchitecture = {
        let experts = GGUFExperts(network: "block_sparse_moe", router: "router", normalizes: true)
        return GGUFArchitecture(
            name: "granitemoe", modelClass: "GraniteMoeForCausalLM", tensors: .experts(experts), pairsNeighbors: true,
            addsOneToNorms: false, experts: experts, details: granite.details
        ) { read, sizes in
            guard read["expert_shared_feed_forward_length"]?.integer ?? 0 == 0 else {
                throw PEFTError(
                    "\(read.file.url.path) has a network beside the experts ('expert_shared_feed_forward_length'), which"
                        + " is not supported",
                    remedy: "use another model")
            }
            return try granite.configuration(read, sizes).merging(
                experts.configuration(read, countKey: "num_local_experts")
            ) { $1 }
        }
    }()
}

extension LlamaVariant {
    static let graniteMoE = LlamaVariant(
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .none,
        feedForwardKey: "block_sparse_moe",
        experts: { try .granite($0, layers: $1) },
        details: { read, _ in try multipliers(read) }, windows: AttentionWindows.none)
}

extension ExpertSettings {
    /// The experts of Granite's models, in all layers.
    static func granite(_ read: ConfigurationReader, layers: Int) throws -> ExpertSettings {
        let (count, choices) = try counts(read, key: "num_local_experts", count: 8, choices: 2)
        return ExpertSettings(
            count: count, choices: choices,
            feedForwardSize: try read.integer("intermediate_size", .width, default: 11008),
            router: .softmax(normalizes: true), routerKey: "router", isSparse: Array(repeating: true, count: layers),
            loss: try RouterLoss(read, experts: count, choices: choices, coefficient: 0.001))
    }
}
