/// llama.cpp's names of model families and their tensors.
struct GGUFArchitecture: Sendable {
    /// `general.architecture`.
    let name: String
    /// `model_type`.
    let family: String
    /// The class name in transformers.
    let modelClass: String
    /// Whether the rows of q and k are ordered for interleaved RoPE, with the two dimensions of a pair adjacent
    /// instead of half a head apart.
    var pairsNeighbors = false
    /// Whether norms are stored as 1 + w.
    var addsOneToNorms = false
    /// Whether sublayers have norms on their outputs.
    var hasOutputNorms = false

    static let all = [
        GGUFArchitecture(name: "llama", family: "llama", modelClass: "LlamaForCausalLM", pairsNeighbors: true),
        GGUFArchitecture(name: "qwen2", family: "qwen2", modelClass: "Qwen2ForCausalLM"),
        GGUFArchitecture(name: "qwen3", family: "qwen3", modelClass: "Qwen3ForCausalLM"),
        GGUFArchitecture(name: "gemma", family: "gemma", modelClass: "GemmaForCausalLM", addsOneToNorms: true),
        GGUFArchitecture(
            name: "gemma2", family: "gemma2", modelClass: "Gemma2ForCausalLM", addsOneToNorms: true,
            hasOutputNorms: true),
        GGUFArchitecture(
            name: "gemma3", family: "gemma3_text", modelClass: "Gemma3ForCausalLM", addsOneToNorms: true,
            hasOutputNorms: true),
    ]

    /// The architecture that a family is written as; llama.cpp represents Mistral as Llama.
    static func of(family: String) -> GGUFArchitecture? {
        all.first { $0.family == (family == "mistral" ? "llama" : family) }
    }

    /// Number of layers of the models whose attention scores are scaled by 1/√(hiddenSize / heads), not 1/√headSize.
    static let unusualScales = ["gemma2": 46, "gemma3": 62]

    var isGemma: Bool { addsOneToNorms }

    private static let outer = [
        ("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head"),
    ]
    /// Names below `blk.N` and below `model.layers.N`.
    private var inner: [(String, String)] {
        [
            ("attn_norm", "input_layernorm"), ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"),
            ("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm"),
            ("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj"),
        ]
            + (hasOutputNorms
                ? [
                    ("post_attention_norm", "post_attention_layernorm"), ("ffn_norm", "pre_feedforward_layernorm"),
                    ("post_ffw_norm", "post_feedforward_layernorm"),
                ] : [("ffn_norm", "post_attention_layernorm")])
    }

    /// The model's path of a tensor of the file; `nil` if the family has none.
    func path(of tensor: String) -> String? {
        translate(tensor, layers: "blk.", to: "model.layers.", Self.outer, inner)
    }

    /// The file's name of a model's tensor; `nil` if it has none.
    func tensor(of path: String) -> String? {
        translate(
            path, layers: "model.layers.", to: "blk.", Self.outer.map { ($0.1, $0.0) }, inner.map { ($0.1, $0.0) })
    }

    private func translate(
        _ name: String, layers: String, to newLayers: String, _ outer: [(String, String)],
        _ inner: [(String, String)]
    ) -> String? {
        guard let dot = name.lastIndex(of: ".") else { return nil }
        let (stem, kind) = (String(name[..<dot]), String(name[dot...]))
        guard kind == ".weight" || kind == ".bias" else { return nil }
        if let match = outer.first(where: { $0.0 == stem }) { return match.1 + kind }
        guard stem.hasPrefix(layers) else { return nil }
        let rest = stem.dropFirst(layers.count)
        guard let end = rest.firstIndex(of: "."), let layer = Int(rest[..<end]), layer >= 0,
            let match = inner.first(where: { $0.0 == rest[rest.index(after: end)...] })
        else { return nil }
        return "\(newLayers)\(layer).\(match.1)\(kind)"
    }

    /// Number of heads in a q or k tensor whose rows are reordered; `nil` for other tensors.
    func reorderedHeads(_ path: String, heads: Int, keyHeads: Int) -> Int? {
        guard pairsNeighbors, let leaf = path.split(separator: ".").dropLast().last else { return nil }
        return leaf == "q_proj" ? heads : leaf == "k_proj" ? keyHeads : nil
    }

    /// The stored row of each row of a model's q or k: the model's rows 0 … d/2 − 1 of a head of size d are the even
    /// ones.
    static func storedRows(_ rows: Int, heads: Int) -> [Int] {
        let size = rows / heads
        return (0..<rows).map { row in
            let (head, own) = (row / size, row % size)
            return head * size + (own < size / 2 ? 2 * own : 2 * (own - size / 2) + 1)
        }
    }
}
