import PEFTSupport
import Torch
import TorchNN

/// EVA's pass over the data: collects the inputs of all projections over training batches, then sets each projection's directions and rank.
final class PrincipalDirections: TrainingHook {
    /// Number of tokens after which a projection's input covariance is considered converged.
    private static let enoughTokens = 16_384
    private let adapters: [(path: String, adapter: LoRAAdapter)]
    private let rho: Double

    init(_ adapter: Adapter, rho: Double) {
        adapters = adapter.attached.compactMap { entry in
            (entry.adapter as? LoRAAdapter).map { (entry.path, $0) }
        }
        self.rho = rho
    }

    func begin(totalSteps: Int, forward: () throws -> Bool) throws {
        for (_, adapter) in adapters {
            adapter.observer = InputCovariance(adapter.a.dim(1), device: adapter.a.device)
        }
        defer { for (_, adapter) in adapters { adapter.observer = nil } }
        while adapters.contains(where: { ($0.adapter.observer?.tokens ?? 0) < Self.enoughTokens }) {
            guard try forward() else { break }
        }
        let found = adapters.map { $0.adapter.observer?.principalDirections() }
        let ranks = Self.ranks(
            found.map { $0?.shares ?? [] }, budget: adapters.map { $0.adapter.rank },
            rho: rho)
        for (index, (_, adapter)) in adapters.enumerated() {
            guard let directions = found[index]?.directions else { continue }
            adapter.begin(with: directions.narrowed(axis: 0, 0..<max(1, min(ranks[index], directions.dim(0)))))
        }
    }

    /// Ranks by explained variance: the largest variance shares over all projections win, each at most ρ times its
    /// own rank.
    static func ranks(_ shares: [[Double]], budget: [Int], rho: Double) -> [Int] {
        let candidates = shares.enumerated().flatMap { site, own -> [(site: Int, share: Double)] in
            own.prefix(max(1, Int((Double(budget[site]) * rho).rounded()))).map { (site, $0) }
        }
        let total = budget.reduce(0, +)
        var ranks = [Int](repeating: 0, count: shares.count)
        for candidate in candidates.sorted(by: { ($1.share, $0.site) < ($0.share, $1.site) }).prefix(total) {
            ranks[candidate.site] += 1
        }
        return ranks
    }

    // The ranks determine the shapes into which the checkpoint's tensors are loaded.
    func state() -> [String: Tensor] {
        ["ranks": Tensor(adapters.map { $0.adapter.rank })]
    }

    func restore(_ state: [String: Tensor], step: Int) throws {
        guard let ranks = state["ranks"]?.array(Int.self), ranks.count == adapters.count else {
            throw PEFTError("the checkpoint has no EVA ranks", remedy: "resume with the settings it was saved with")
        }
        for ((_, adapter), rank) in zip(adapters, ranks) where rank != adapter.rank {
            adapter.begin(with: .zeros([rank, adapter.a.dim(1)], dtype: adapter.a.dtype, device: adapter.a.device))
        }
    }
}

/// The covariance of a projection's inputs, accumulated over batches.
final class InputCovariance {
    private(set) var tokens = 0
    private let squares: Tensor
    private let sums: Tensor

    init(_ inputs: Int, device: Device) {
        squares = .zeros([inputs, inputs], device: device)
        sums = .zeros([inputs], device: device)
    }

    /// Accumulates x `[..., inputs]`.
    func add(_ x: Tensor) {
        withoutGradients {
            let rows = x.detached().to(.float32).reshaped(-1, x.dim(-1))
            squares.add(rows.T.matmul(rows))
            sums.add(rows.sum(axes: [0]))
            tokens += rows.dim(0)
        }
    }

    /// Directions `[inputs, inputs]` by decreasing variance, with their fractions of the total variance.
    func principalDirections() -> (directions: Tensor, shares: [Double])? {
        guard tokens > 1 else { return nil }
        return withoutGradients {
            let count = Double(tokens)
            let mean = (sums / count).to(.float64)
            let outer = mean.unsqueezed(1).matmul(mean.unsqueezed(0))
            let covariance = squares.to(.float64) / count - outer
            // Symmetric and positive semidefinite: its singular vectors are its eigenvectors.
            let (_, variances, directions) = covariance.svd()
            let values: [Double] = variances.array()
            let sum = max(values.reduce(0, +), 1e-300)
            return (directions.to(.float32), values.map { $0 / sum })
        }
    }
}
