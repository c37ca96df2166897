import PEFTSupport
import Torch
import TorchNN

/// Chooses the experts of each token by a projection of it.
final class ExpertRouter: Module {
    /// How experts are chosen and weighted.
    enum Kind: Sendable {
        /// The k most probable; their weights are their probabilities, which are normalized to a sum of 1 or not.
        case softmax(normalizes: Bool)
        /// Of the best groups of experts only (DeepSeek-AI 2024, DeepSeek-V2, section 2.1.2, and V3, eqs. 12–16).
        case grouped(Groups)
        /// The k with the largest logits; their weights are the sigmoids.
        case sigmoid
    }

    struct Groups: Sendable {
        /// Whether scores are sigmoids with a learned correction that only the choice sees, rather than a softmax.
        let isSigmoid: Bool
        let count: Int
        /// Number of groups from which experts are chosen.
        let chosen: Int
        /// A group's score is the sum of so many of its best experts' scores.
        let best: Int
        /// Whether the weights are normalized to a sum of 1, before they are scaled.
        let normalizes: Bool
        let scale: Double
        /// Added to the sum by which weights are normalized.
        var epsilon = 1e-20
        /// Whether sigmoids have a correction.
        var hasCorrection = true
    }

    @ModuleInfo(key: "") var projection: Linear
    /// Added to the scores for choosing, `[experts]`: a buffer, which isn't trained.
    private let correction: Parameter?
    private let kind: Kind
    private let choices: Int

    init(_ kind: Kind, size: Int, experts: Int, choices: Int, hasBias: Bool = false) {
        (self.kind, self.choices) = (kind, choices)
        if case .grouped(let groups) = kind, groups.isSigmoid, groups.hasCorrection {
            correction = Parameter(.empty([experts], device: .meta))
        } else {
            correction = nil
        }
        super.init()
        _projection.wrappedValue = Linear(size, experts, bias: hasBias)
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        correction.map { [("e_score_correction_bias", $0)] } ?? []
    }

    /// x `[tokens, size]` -> logits of all experts `[tokens, experts]`, the chosen ones `[tokens, choices]` (int64) and
    /// their weights.
    func callAsFunction(_ x: Tensor) -> (logits: Tensor, chosen: Tensor, weights: Tensor) {
        let logits = projection(x)
        let scores = logits.dtype == .float64 ? logits : logits.to(.float32)
        switch kind {
        case .softmax(let normalizes):
            let chosen = scores.detached().topK(choices).indices
            // Normalized, the probabilities of the chosen ones are the softmax of their logits.
            let weights =
                normalizes
                ? scores.gathering(axis: 1, chosen).softmax() : scores.softmax().gathering(axis: 1, chosen)
            return (logits, chosen, weights.to(logits.dtype))
        case .sigmoid:
            let chosen = scores.detached().topK(choices).indices
            return (logits, chosen, scores.gathering(axis: 1, chosen).sigmoid().to(logits.dtype))
        case .grouped(let groups):
            let values = groups.isSigmoid ? scores.sigmoid() : scores.softmax()
            let chosen = best(values.detached(), groups)
            var weights = values.gathering(axis: 1, chosen)
            if groups.normalizes { weights = weights / (weights.sum(axes: [1], keep: true) + groups.epsilon) }
            return (logits, chosen, (weights * groups.scale).to(logits.dtype))
        }
    }

    /// The best experts of the best groups by scores `[tokens, experts]`.
    private func best(_ scores: Tensor, _ groups: Groups) -> Tensor {
        let scores = correction.map { scores + $0.tensor.detached().to(scores.dtype) } ?? scores
        guard groups.chosen < groups.count else { return scores.topK(choices).indices }
        let (tokens, experts) = (scores.dim(0), scores.dim(1))
        let parts = scores.reshaped(tokens, groups.count, experts / groups.count)
        let sums = parts.topK(groups.best).values.sum(axes: [2])
        // Groups below the last chosen one.
        let last = sums.topK(groups.chosen).values.narrowed(axis: 1, groups.chosen - 1..<groups.chosen)
        let excluded = sums.less(than: last).unsqueezed(2).expanded(parts.shape).reshaped(tokens, experts)
        let none = Tensor.full([tokens, experts], -.infinity, dtype: scores.dtype, device: scores.device)
        return none.selecting(where: excluded, else: scores).topK(choices).indices
    }
}

/// The load-balancing loss of the routers (Fedus et al. 2021, Switch Transformer, eqs. 4–6), over all layers as in transformers.
struct RouterLoss: Sendable {
    let coefficient: Double
    let experts: Int
    let choices: Int

    /// The loss if `config.json` asks for it (`output_router_logits`).
    init?(_ read: ConfigurationReader, experts: Int, choices: Int, coefficient: Double) throws {
        self.coefficient = try read.number("router_aux_loss_coef", default: coefficient)
        (self.experts, self.choices) = (experts, choices)
        guard try read.boolean("output_router_logits", default: false) else { return nil }
    }

    /// coefficient · E · Σₑ fₑ pₑ with the mean number of assignments fₑ and the mean probability pₑ of expert e per token;
    /// `nil` without layers.
    func callAsFunction(_ layers: [Tensor]) -> Tensor? {
        let logits = layers.map { $0.to(.float32) }
        guard let first = logits.first else { return nil }
        let rows = Double(logits.count * first.dim(0))
        let probabilities = logits.map { $0.softmax() }
        let assignments = probabilities.map { probability -> Tensor in
            let chosen = probability.detached().topK(choices).indices
            return ExpertRouting(chosen, experts: experts).counts.to(.float32)
        }
        func sum(_ tensors: [Tensor]) -> Tensor { tensors.dropFirst().reduce(tensors[0], +) }
        let means = sum(probabilities.map { $0.sum(axes: [0]) }) / rows
        let shares = (sum(assignments) / rows).to(first.device)
        return (shares * means).sum() * (coefficient * Double(experts))
    }
}

/// Logits of the routers in a forward pass, until a loss reads them.
final class RouterRecord {
    private(set) var logits: [Tensor] = []
    private var isRead = false

    /// A recomputed layer (activation checkpointing) adds nothing once the loss is known.
    func add(_ tensor: Tensor) { if !isRead { logits.append(tensor) } }

    func read() -> [Tensor] {
        isRead = true
        defer { logits = [] }
        return logits
    }
}
