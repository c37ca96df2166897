import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Combines several LoRA adapters into one, with the arithmetic of Hugging Face PEFT's `add_weighted_adapter`.
public struct AdapterCombination {
    /// How deltas are combined.
    public enum Method: String, CaseIterable, Sendable {
        /// Weighted sums of the matrices A and of the matrices B.
        case linear
        /// Concatenation along the rank: the exact weighted sum of the deltas, with the sum of the ranks.
        case cat
        /// The best approximation of the weighted sum of the deltas at a given rank (truncated SVD).
        case svd
        /// Trim small values, elect signs and average the values that agree (TIES; Yadav et al. 2023).
        case ties
        case tiesSVD = "ties_svd"
        /// Drop values at random and rescale the rest (DARE; Yu et al. 2024), then a linear sum or TIES.
        case dareLinear = "dare_linear"
        case dareTIES = "dare_ties"
        case dareLinearSVD = "dare_linear_svd"
        case dareTIESSVD = "dare_ties_svd"
        /// Prune values of small magnitude, then a linear sum.
        case magnitudePrune = "magnitude_prune"
        case magnitudePruneSVD = "magnitude_prune_svd"

        /// Whether the deltas are multiplied out, combined and factorized.
        package var usesUpdates: Bool { rawValue.hasSuffix("svd") }
        package var prunes: Bool { ![.linear, .cat, .svd].contains(self) }
        fileprivate var isRandom: Bool { rawValue.hasPrefix("dare") }
        package var elects: Bool { rawValue.contains("ties") }
    }

    /// How deltas are combined.
    public var method: Method
    /// Fraction of values that pruning keeps.
    public var density: Double
    /// Whether signs are elected by count instead of by the sum of the values.
    public var electsByFrequency: Bool
    /// Rank of the SVD; the largest of the adapters' ranks if `nil`.
    public var rank: Int?
    /// Quantile at which the SVD's factors are clamped on both sides; no clamping if `nil`.
    public var clamp: Double?
    /// Seed of DARE's masks. All tensors draw from one stream: module by module in the model's order, adapter by
    /// adapter, A's before B's.
    public var seed: UInt64
    /// For tests: DARE's mask of a tensor, 1 or 0 for each element, instead of a random one.
    var keeping: ((Tensor) -> Tensor)?

    /// - Parameters:
    ///   - method: how deltas are combined.
    ///   - density: share of the values that sparse methods keep, from 0 to 1.
    ///   - electsByFrequency: whether TIES elects signs by number instead of sum.
    ///   - rank: rank of the result for SVD methods; `nil` for the largest.
    ///   - clamp: quantile at which values are clamped; `nil` for none.
    ///   - seed: seed of the random pruning (DARE).
    public init(
        method: Method = .linear, density: Double = 0.5, electsByFrequency: Bool = false, rank: Int? = nil,
        clamp: Double? = nil, seed: UInt64 = 0
    ) {
        (self.method, self.density, self.electsByFrequency) = (method, density, electsByFrequency)
        (self.rank, self.clamp, self.seed) = (rank, clamp, seed)
    }

    /// Combines adapters.
    /// - Parameter adapters: adapters over one model with their weights, active or not.
    /// - Returns: a new active adapter with scale 1.
    /// - Throws: ``PEFTError`` if the adapters can't be combined with this method.
    public func callAsFunction(_ adapters: [(adapter: Adapter, weight: Double)]) throws -> Adapter {
        guard adapters.count > 1, let first = adapters.first?.adapter else {
            throw PEFTError("got \(adapters.count) adapter", remedy: "combine at least 2")
        }
        guard density > 0, density <= 1 else {
            throw PEFTError("the density is \(density)", remedy: "use a value above 0 and up to 1")
        }
        guard rank.map({ $0 > 0 }) ?? true else {
            throw PEFTError("the rank is \(rank ?? 0)", remedy: "use 1 or more")
        }
        guard clamp.map({ $0 > 0 && $0 <= 1 }) ?? true else {
            throw PEFTError("the clamp is \(clamp ?? 0)", remedy: "use a quantile above 0 and up to 1")
        }
        if let (adapter, weight) = adapters.first(where: { !$0.weight.isFinite }) {
            throw PEFTError("the weight of adapter '\(adapter.name)' is \(weight)", remedy: "use a finite number")
        }
        var updates: [String: [(update: LoRAAdapter, weight: Double)]] = [:]
        var order: [String] = []
        for (adapter, weight) in adapters {
            guard adapter.model === first.model else {
                throw PEFTError("the adapters belong to different models", remedy: "load them onto the same model")
            }
            guard adapter.vocabulary?.replacesNumbers != true else {
                throw PEFTError(
                    "adapter '\(adapter.name)' replaces the base's embeddings",
                    remedy: "merge it into its base first, or combine plain LoRA adapters")
            }
            guard adapter.trained.isEmpty else {
                throw PEFTError(
                    "adapter '\(adapter.name)' trains the model's own tensors",
                    remedy: "combine only plain LoRA adapters")
            }
            for (path, _, module) in adapter.attached {
                guard let update = module as? LoRAAdapter, update.isDelta else {
                    throw PEFTError(
                        "adapter '\(adapter.name)' is \(adapter.choice.label), which can't be combined",
                        remedy: "use plain LoRA adapters over projections")
                }
                if updates[path] == nil { order.append(path) }
                updates[path, default: []].append((update, weight))
            }
        }
        let ranks = updates.values.flatMap { $0.map(\.update.rank) }
        let needsEqual = !method.usesUpdates && method != .cat
        if needsEqual, Set(ranks).count > 1 {
            throw PEFTError(
                "\(method.rawValue) needs equal ranks, but the adapters have \(Set(ranks).sorted().map(String.init).joined(separator: ", "))",
                remedy: "use cat or svd for adapters of different ranks")
        }
        var random = SeededRandom(seed: seed, stream: 0xDA2E)
        var result: [String: (a: Tensor, b: Tensor)] = [:]
        try withTorchErrors {
            withoutGradients {
                for path in order {
                    result[path] = combined(updates[path] ?? [], largest: ranks.max() ?? 1, &random)
                }
            }
        }
        return try assembled(result, order: order, on: first.model)
    }

    private func combined(
        _ parts: [(update: LoRAAdapter, weight: Double)], largest: Int, _ random: inout SeededRandom
    ) -> (a: Tensor, b: Tensor) {
        func matrices(_ part: LoRAAdapter) -> (a: Tensor, b: Tensor) {
            let stored = part.storedTensors()
            return (
                (stored["lora_A.weight"] ?? part.a).detached().to(.float32),
                (stored["lora_B.weight"] ?? part.b).detached().to(.float32)
            )
        }
        let all = parts.map { matrices($0.update) }
        let weights = zip(parts, all).map { $0.0.weight * $0.0.update.scale }
        if method == .cat {
            return (
                .concatenated(zip(all, weights).map { $0.a * $1 }), .concatenated(all.map(\.b), axis: 1).contiguous()
            )
        }
        if method.usesUpdates {
            // Clamping depends on the signs of the singular vectors, so decompose the full matrix as Hugging Face
            // does.
            let (u, s, vh) =
                method == .svd && clamp == nil
                ? decomposed(all, weights: weights)
                : narrowed(
                    sum(
                        zip(all, parts).map { $0.b.matmul($0.a) * $1.update.scale }, weights: parts.map(\.weight),
                        &random
                    ).to(.float64).svd())
            let kept = min(rank ?? largest, s.dim(0))
            let left = (u.narrowed(axis: 1, 0..<kept) * s.narrowed(axis: 0, 0..<kept)).contiguous()
            let right = vh.narrowed(axis: 0, 0..<kept).contiguous()
            guard let clamp else { return (right, left) }
            let limit = Self.quantile(clamp, of: left.array() + right.array())
            return (right.atLeast(-limit).atMost(limit), left.atLeast(-limit).atMost(limit))
        }
        // The weight is split evenly between A and B; a negative sign goes to A.
        let roots = weights.map { abs($0).squareRoot() }
        let signed = zip(weights, roots).map { $0 < 0 ? -$1 : $1 }
        return (sum(all.map(\.a), weights: signed, &random), sum(all.map(\.b), weights: roots, &random))
    }

    /// The SVD of a sum of products B A without forming the sum: for the concatenated matrices B = Q R and Aᵀ = P S,
    /// it is the SVD of R Sᵀ, whose size is the sum of the ranks.
    private func decomposed(_ parts: [(a: Tensor, b: Tensor)], weights: [Double]) -> (
        u: Tensor, s: Tensor, vh: Tensor
    ) {
        let left = Tensor.concatenated(zip(parts, weights).map { $0.b * $1 }, axis: 1).to(.float64)
        let right = Tensor.concatenated(parts.map(\.a)).to(.float64)
        guard left.dim(1) < min(left.dim(0), right.dim(1)) else {
            return narrowed(left.matmul(right).svd())
        }
        let (q, r) = left.qr()
        let (p, t) = right.T.contiguous().qr()
        let (u, s, vh) = r.matmul(t.T).svd()
        return (q.matmul(u).to(.float32), s.to(.float32), vh.matmul(p.T).to(.float32))
    }

    private func narrowed(_ parts: (u: Tensor, s: Tensor, vh: Tensor)) -> (u: Tensor, s: Tensor, vh: Tensor) {
        (parts.u.to(.float32), parts.s.to(.float32), parts.vh.to(.float32))
    }

    /// The quantile of values with linear interpolation, as PyTorch's `quantile`.
    private static func quantile(_ share: Double, of values: [Float]) -> Double {
        let sorted = values.sorted()
        guard let last = sorted.last else { return 0 }
        let position = share * Double(sorted.count - 1)
        let low = Int(position)
        guard low + 1 < sorted.count else { return Double(last) }
        return Double(sorted[low]) + (position - Double(low)) * Double(sorted[low + 1] - sorted[low])
    }

    /// The weighted sum of tensors after pruning and, for TIES, sign election.
    private func sum(_ tensors: [Tensor], weights: [Double], _ random: inout SeededRandom) -> Tensor {
        var tensors = tensors
        if method.prunes, density < 1 {
            tensors = tensors.map { tensor in
                if method.isRandom {
                    if let keeping { return tensor * keeping(tensor) / density }
                    let draw = Tensor.zeros(like: tensor)
                    draw.fillUniform(0, 1, from: &random)
                    return tensor * draw.less(than: density).to(tensor.dtype) / density
                }
                let flat = tensor.reshaped(-1)
                let count = Int(density * Double(tensor.count))
                guard count > 0 else { return Tensor.zeros(like: tensor) }
                let kept = flat.abs().topK(count).indices
                let mask = Tensor.zeros(like: flat).replacing(
                    kept, with: .ones([count], dtype: flat.dtype, device: flat.device))
                return (flat * mask).reshaped(tensor.shape)
            }
        }
        let weighted = zip(tensors, weights).map { $0 * $1 }
        func total(_ list: [Tensor]) -> Tensor { list.dropFirst().reduce(list[0]) { $0 + $1 } }
        guard method.elects else { return total(weighted) }
        let votes = total(electsByFrequency ? tensors.map { $0.sign() } : tensors)
        // Ties elect the positive sign.
        let majority = votes.less(than: 0).to(votes.dtype) * -2 + 1
        let agreeing = tensors.map { $0.sign().equal(to: majority).to(votes.dtype) }
        return total(zip(weighted, agreeing).map { $0 * $1 }) / total(agreeing).atLeast(1)
    }

    /// A LoRA adapter of these matrices, with alpha equal to the rank of each module.
    private func assembled(_ matrices: [String: (a: Tensor, b: Tensor)], order: [String], on model: any LanguageModel)
        throws -> Adapter
    {
        let ranks = matrices.mapValues { $0.a.dim(0) }
        let common = ranks.values.max() ?? 1
        var configuration = LoRA.Configuration(rank: common, alpha: Double(common), targets: order)
        for (path, rank) in ranks where rank != common {
            // A pattern is a regular expression, so dots are escaped.
            let pattern = path.split(separator: ".").joined(separator: "\\.")
            configuration.rankPattern[pattern] = Double(rank)
            configuration.alphaPattern[pattern] = Double(rank)
        }
        let adapter = try Adapter(MethodChoice(LoRA.self, configuration), on: model, name: "combined")
        try withTorchErrors {
            for (path, _, module) in adapter.attached {
                guard let update = module as? LoRAAdapter, let own = matrices[path] else { continue }
                update.a.copy(from: own.a)
                update.b.copy(from: own.b)
            }
        }
        adapter.setTrainable(false)
        return adapter
    }
}
