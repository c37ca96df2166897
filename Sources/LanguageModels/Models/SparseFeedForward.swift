import PEFTSupport
import Torch
import TorchNN

/// A sparse feed-forward network: each token is computed by the experts that the router chooses for it, and by a shared
/// network if the family has one.
final class SparseFeedForward: FeedForward {
    @ModuleInfo var router: ExpertRouter
    @ModuleInfo var experts: Experts
    @ModuleInfo var shared: GatedFeedForward?
    @ModuleInfo(key: "shared_expert_gate") var sharedGate: Linear?
    private let count: Int

    init(_ settings: ExpertSettings, size: Int, activation: Activation) {
        count = settings.count
        _router = ModuleInfo(
            wrappedValue: ExpertRouter(
                settings.router, size: size, experts: settings.count, choices: settings.choices,
                hasBias: settings.gate != nil),
            key: settings.routerKey)
        _experts.wrappedValue = Experts(
            settings.count, size: size, hidden: settings.feedForwardSize, activation: activation,
            isTransposed: settings.isTransposed, scalesInputs: settings.scalesInputs, gate: settings.gate)
        _shared = ModuleInfo(
            wrappedValue: settings.shared.map {
                GatedFeedForward(size, hidden: $0.size, bias: $0.hasBias, activation: activation)
            },
            key: settings.shared?.key)
        _sharedGate.wrappedValue = settings.shared?.isGated == true ? Linear(size, 1, bias: false) : nil
    }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let (logits, chosen, weights) = router(x)
        context.routerRecord?.add(logits)
        let y = experts(x, weights: weights, routing: ExpertRouting(chosen, experts: count))
        guard let shared else { return y }
        let common = shared(x)
        return y + (sharedGate.map { $0(x).sigmoid() * common } ?? common)
    }
}

/// The experts of a family's layers, as its `config.json` describes them.
struct ExpertSettings: Sendable {
    /// Number of experts.
    var count: Int
    /// Number of experts per token.
    var choices: Int
    /// Size of an expert's hidden layer.
    var feedForwardSize: Int
    var router = ExpertRouter.Kind.softmax(normalizes: true)
    /// Whether files have the experts' matrices as `[experts, inputs, outputs]`.
    var isTransposed = false
    /// The gate of experts and a router with biases.
    var gate: ClampedGate?
    /// Whether the router's weights multiply the experts' inputs.
    var scalesInputs = false
    /// Name of the router in the checkpoint.
    var routerKey = "gate"
    /// A network that computes every token.
    var shared: Shared?
    /// Whether each layer has experts, rather than one dense network.
    var isSparse: [Bool]
    /// Size of a dense network's hidden layer, if it isn't `intermediate_size`.
    var denseSize: Int?
    /// The routers' loss, if training adds it.
    var loss: RouterLoss?

    struct Shared: Sendable {
        /// Name in the checkpoint.
        let key: String
        /// Size of its hidden layer.
        let size: Int
        /// Whether its output is multiplied by a sigmoid.
        var isGated = false
        var hasBias = false
    }

    /// The number of experts and of those per token.
    static func counts(_ read: ConfigurationReader, key: String, count: Int, choices: Int) throws -> (Int, Int) {
        let count = try read.integer(key, .heads, default: count)
        let choices = try read.integer("num_experts_per_tok", .heads, default: choices)
        guard choices <= count else {
            throw PEFTError(
                "config.json: 'num_experts_per_tok' is \(choices), but '\(key)' is \(count)",
                remedy: "use at most as many experts per token as there are")
        }
        return (count, choices)
    }

    /// Whether each layer is sparse in DeepSeek's families: all but the first `first_k_dense_replace`.
    static func afterDense(_ read: ConfigurationReader, layers: Int, dense: Int) throws -> [Bool] {
        let first = try read.integer(
            "first_k_dense_replace", default: dense, in: 0...ConfigurationReader.Size.layers.rawValue)
        return (0..<layers).map { $0 >= first }
    }

    /// The groups of a router in DeepSeek's families.
    static func groups(
        _ read: ConfigurationReader, experts: Int, choices: Int, isSigmoid: Bool, count: Int, chosen: Int,
        normalizes: Bool, scale: Double
    ) throws -> ExpertRouter.Groups {
        let count = try read.integer("n_group", .heads, default: count)
        let chosen = try read.integer("topk_group", .heads, default: chosen)
        let best = isSigmoid ? 2 : 1
        guard experts.isMultiple(of: count), chosen <= count, chosen * (experts / count) >= choices,
            experts / count >= best
        else {
            throw PEFTError(
                "config.json: 'n_group' is \(count) and 'topk_group' \(chosen), which doesn't fit \(experts) experts with"
                    + " \(choices) per token",
                remedy: "check these numbers")
        }
        return ExpertRouter.Groups(
            isSigmoid: isSigmoid, count: count, chosen: chosen, best: best, normalizes: normalizes,
            scale: try read.number("routed_scaling_factor", default: scale))
    }

    /// Whether each layer is sparse in Qwen's families: every `decoder_sparse_step`-th one that isn't in `mlp_only_layers`.
    static func steps(_ read: ConfigurationReader, layers: Int) throws -> [Bool] {
        let step = try read.integer("decoder_sparse_step", .layers, default: 1)
        var dense: Set<Int> = []
        if let value = read.json["mlp_only_layers"], value != .null {
            let list = (value.array ?? []).compactMap(\.int)
            guard let all = value.array, all.count == list.count else {
                throw PEFTError(
                    "config.json: 'mlp_only_layers' is \(value.text(indent: nil))", remedy: "use a list of layers")
            }
            dense = Set(list)
        }
        return (0..<layers).map { !dense.contains($0) && ($0 + 1).isMultiple(of: step) }
    }
}
