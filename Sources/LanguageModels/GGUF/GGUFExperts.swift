import PEFTSupport
import Torch

/// llama.cpp's form of a layer's experts: three tensors, of which the model has gate and up as one.
struct GGUFExperts: Sendable {
    /// Path of the feed-forward network in a layer.
    var network = "mlp"
    /// Name of the router in it.
    var router = "gate"
    /// Whether llama.cpp normalizes the weights of a token's experts, which are a softmax's; `nil` if the file says how they
    /// are computed, and which layers are dense.
    let normalizes: Bool?
    /// Whether the file has the size of an expert's hidden layer, and not as `feed_forward_length`.
    var hasSize = false
    /// Whether a gated network computes every token, too.
    var hasShared = false
    /// Name of that network.
    var shared = "shared_expert"
    /// Whether a sigmoid multiplies its output, and the file has its size.
    var isSharedGated = true
    /// Whether layers may have a dense network instead.
    var hasDense: Bool { normalizes == nil }

    private static let parts = [
        "gate_up_proj": ["ffn_gate_exps", "ffn_up_exps"], "down_proj": ["ffn_down_exps"],
    ]
    /// The vector of the shared network's gate, of which the model has a matrix with one row.
    private static let sharedGate = "ffn_gate_inp_shexp"

    /// Names below a layer of the tensors that aren't experts: the file's and the model's.
    var others: [(file: String, model: String)] {
        var names: [(file: String, model: String)] = [("ffn_gate_inp", "\(network).\(router)")]
        guard hasShared else { return names }
        for part in ["gate", "up", "down"] {
            names.append(("ffn_\(part)_shexp", "\(network).\(shared).\(part)_proj"))
        }
        if isSharedGated { names.append((Self.sharedGate, "\(network).shared_expert_gate")) }
        return names
    }

    /// The file's tensors of a model's tensor of all experts, in the order of its rows; `nil` for another tensor.
    func tensors(of path: String) -> [String]? {
        let parts = path.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 6, path.hasPrefix("model.layers."), Int(parts[2]) != nil, parts[3] == network,
            parts[4] == "experts"
        else { return nil }
        return Self.parts[String(parts[5])]?.map { "blk.\(parts[2]).\($0).weight" }
    }

    /// The model's tensor to which a file's tensor belongs, and the file's tensors of it; `nil` for another tensor.
    func path(of tensor: String) -> (path: String, tensors: [String])? {
        let parts = tensor.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "blk", Int(parts[1]) != nil, parts[3] == "weight",
            let part = Self.parts.first(where: { $0.value.contains(String(parts[2])) })
        else { return nil }
        return (
            "model.layers.\(parts[1]).\(network).experts.\(part.key)",
            part.value.map { "blk.\(parts[1]).\($0).weight" }
        )
    }

    /// Whether a file's tensor is a vector that the model has as a matrix with one row.
    func isRow(_ tensor: String) -> Bool { tensor.hasSuffix(".\(Self.sharedGate).weight") }

    /// Whether a file's tensor is a router's, which llama.cpp never quantizes.
    func isRouter(_ tensor: String) -> Bool { tensor.hasSuffix(".ffn_gate_inp.weight") }

    /// Adds a model's experts to the metadata.
    /// - Throws: ``PEFTError`` for experts that llama.cpp would compute differently.
    func describe(_ experts: ExpertSettings, in description: inout GGUFDescription) throws {
        if let normalizes {
            guard experts.isSparse.allSatisfy({ $0 }) else {
                throw description.refusal("layers have a dense network instead of experts")
            }
            guard case .softmax(let isNormalized) = experts.router, isNormalized == normalizes else {
                throw description.refusal(
                    "the weights of a token's experts are\(normalizes ? "n't" : "") normalized ('norm_topk_prob')")
            }
        }
        description.add("expert_count", .integer(experts.count))
        description.add("expert_used_count", .integer(experts.choices))
        if hasSize { description.add("expert_feed_forward_length", .integer(experts.feedForwardSize)) }
        if hasShared, isSharedGated, let shared = experts.shared {
            description.add("expert_shared_feed_forward_length", .integer(shared.size))
        }
    }

    /// Keys of `config.json` that a file's metadata gives.
    func configuration(_ read: GGUFSettings, countKey: String) throws -> [String: JSON] {
        [
            "hidden_act": "silu", countKey: .integer(try read.count("expert_count")),
            "num_experts_per_tok": .integer(try read.count("expert_used_count")),
        ]
    }
}

extension GGUFTensorNames {
    /// Llama's names with experts.
    static func experts(_ experts: GGUFExperts, biases: Set<String>? = nil) -> GGUFTensorNames {
        let dense: Set<String> = ["ffn_gate", "ffn_up", "ffn_down"]
        return GGUFTensorNames(
            outer: llama.outer,
            inner: llama.inner.filter { experts.hasDense || !dense.contains($0.file) } + experts.others,
            biases: biases)
    }
}
