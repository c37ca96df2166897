import Support
import Torch

/// Whether dropout is live, and which masks it draws.
///
/// Dropout is live within ``DropoutScope/run(seed:stream:_:)`` and nowhere else, so an evaluation can't leave it on
/// by accident, and a step's masks are a function of the seed and the step, so a resumed run draws the same.
public final class DropoutScope: @unchecked Sendable {
    // Used by one thread at a time: the one that runs the forward pass.
    private var random: SeededRandom

    @TaskLocal private static var current: DropoutScope?

    private init(_ random: SeededRandom) { self.random = random }

    /// Runs a forward pass with dropout; `stream` is the step's number.
    public static func run<Result>(seed: UInt64, stream: UInt64, _ body: () throws -> Result) rethrows -> Result {
        try $current.withValue(DropoutScope(SeededRandom(seed: seed, stream: stream)), operation: body)
    }

    /// What draws from here on, for a part of a forward pass that is run again: the same masks.
    static func captured() -> (_ body: () -> Void) -> Void {
        guard let scope = current else { return { body in $current.withValue(nil, operation: body) } }
        let random = scope.random
        return { body in $current.withValue(DropoutScope(random), operation: body) }
    }

    /// Whether dropout is live here.
    public static var isLive: Bool { current != nil }

    /// The probability to use now, with a seed of its own; 0 outside a scope.
    public static func draw(_ probability: Double) -> (probability: Double, seed: UInt64) {
        guard probability > 0, let scope = current else { return (0, 0) }
        return (probability, scope.random.next())
    }
}

/// x with elements dropped with `probability`, inside a ``DropoutScope``; x itself outside.
public func dropout(_ x: Tensor, _ probability: Double) -> Tensor {
    let (probability, seed) = DropoutScope.draw(probability)
    return Functions.dropout(x, probability: probability, seed: seed)
}
