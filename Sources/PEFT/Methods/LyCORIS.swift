import PEFTSupport
import Torch
import TorchNN

/// Settings that LoHa and LoKr share in Hugging Face's files (as in LyCORIS): rank, alpha, dropout of rows and
/// modules, and patterns.
public struct LyCORISSettings: Sendable {
    /// Rank r.
    public var rank = 8
    /// α; ΔW is scaled by s = α / r.
    public var alpha = 8.0
    /// Probability of dropping a row of ΔW in a training step's forward pass.
    public var rankDropout = 0.0
    /// Probability of dropping a module's ΔW in a training step's forward pass.
    public var moduleDropout = 0.0
    /// Ranks of modules whose path matches a pattern.
    public var rankPattern: [String: Double] = [:]
    /// Values of α of modules whose path matches a pattern.
    public var alphaPattern: [String: Double] = [:]
    /// Target modules; the defaults of the model's family if there are none.
    public var selection = TargetSelection(targets: [])

    /// The default options.
    public init() {}

    func rank(at path: String) throws -> Int {
        try TargetSelection.value(for: path, in: rankPattern).map { Int($0) } ?? rank
    }

    func scale(at path: String) throws -> Double {
        try (TargetSelection.value(for: path, in: alphaPattern) ?? alpha) / Double(rank(at: path))
    }

    func validate() throws {
        guard alpha > 0, alpha.isFinite else {
            throw PEFTError("alpha is \(alpha)", remedy: "use a value above 0")
        }
        if let bad = rankPattern.first(where: { !((1...65536).contains($0.value) && $0.value == $0.value.rounded()) })
        {
            throw PEFTError(
                "the rank for '\(bad.key)' is \(bad.value)", remedy: "use an integer of at least 1")
        }
        try selection.validate()
    }
}

/// A configuration that holds ``LyCORISSettings``.
package protocol LyCORISConfiguration: BuiltInConfiguration {
    var settings: LyCORISSettings { get set }
}

extension LyCORISConfiguration {
    static var lycorisFields: [ConfigurationField<Self>] {
        [
            rankField(\.settings.rank, help: "rank of ΔW"),
            numberField(
                "alpha", key: "alpha", \.settings.alpha, 0...1e6,
                help: "alpha; ΔW is scaled by alpha / rank"),
            numberField(
                "rank-dropout", key: "rank_dropout", \.settings.rankDropout, 0...0.99,
                help: "probability of dropping a row of ΔW in training"),
            numberField(
                "module-dropout", key: "module_dropout", \.settings.moduleDropout, 0...0.99,
                help: "probability of dropping a module's ΔW in training"),
            .init(
                "rank-pattern", key: "rank_pattern", .numbersByPattern,
                help: "ranks for matching modules: pattern=rank,…"
            ) {
                .object($0.settings.rankPattern.mapValues { .wholeOr($0) })
            } write: {
                $0.settings.rankPattern = try patterns($1)
            },
            .init(
                "alpha-pattern", key: "alpha_pattern", .numbersByPattern,
                help: "alphas for matching modules: pattern=alpha,…"
            ) {
                .object($0.settings.alphaPattern.mapValues { .wholeOr($0) })
            } write: {
                $0.settings.alphaPattern = try patterns($1)
            },
        ] + targetFields(\.settings.selection) + layerFields(\.settings.selection)
    }
}

/// Rank and module dropout of LoHa and LoKr.
struct LyCORISDropout {
    let rows: Double
    let module: Double

    /// Whether something may be dropped in this forward pass.
    var isLive: Bool { (rows > 0 || module > 0) && DropoutScope.isLive }

    /// Whether the whole ΔW is dropped in this forward pass.
    func leavesOut() -> Bool {
        let (probability, seed) = DropoutScope.draw(module)
        guard probability > 0 else { return false }
        var random = SeededRandom(seed: seed)
        return Double(random.next() >> 11) * 0x1p-53 < probability
    }

    /// A mask of rows, scaled to a mean of 1, `[outputs, 1]`; `nil` if no row is dropped.
    func rowMask(_ outputs: Int, like: Tensor) -> Tensor? {
        let (probability, seed) = DropoutScope.draw(rows)
        guard probability > 0 else { return nil }
        let ones = Tensor.ones([outputs, 1], dtype: like.dtype, device: like.device)
        let kept = Functions.dropout(ones, probability: probability, seed: seed).greater(than: 0).to(like.dtype)
        return kept / kept.mean().atLeast(1e-12)
    }
}
