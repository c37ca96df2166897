import PEFTSupport
import Torch

/// Scope in which dropout is active, and the source of its masks.
///
/// Dropout is active only within ``DropoutScope/run(seed:stream:_:)``, so evaluation can't leave it on by accident. A
/// step's masks depend only on the seed and the step, so a resumed run draws the same.
package final class DropoutScope: @unchecked Sendable {
    // Used by one thread at a time: the one that runs the forward pass.
    private var random: SeededRandom

    @TaskLocal private static var current: DropoutScope?

    private init(_ random: SeededRandom) { self.random = random }

    /// Runs a forward pass with dropout; `stream` is the step number.
    package static func run<Result>(seed: UInt64, stream: UInt64, _ body: () throws -> Result) rethrows -> Result {
        try $current.withValue(DropoutScope(SeededRandom(seed: seed, stream: stream)), operation: body)
    }

    /// Whether `body` draws masks: dropout, or noise, is active in it.
    package static func draws(_ body: () -> Void) -> Bool {
        var untouched = SeededRandom(seed: 0)
        let scope = DropoutScope(untouched)
        withoutGradients { $current.withValue(scope, operation: body) }
        return scope.random.next() != untouched.next()
    }

    /// Captures the random state, to recompute a part of a forward pass with the same masks.
    static func captured() -> (_ body: () -> Void) -> Void {
        guard let scope = current else { return { body in $current.withValue(nil, operation: body) } }
        let random = scope.random
        return { body in $current.withValue(DropoutScope(random), operation: body) }
    }

    /// Whether dropout is active.
    package static var isLive: Bool { current != nil }

    /// A fresh seed; `nil` outside a scope.
    static func seed() -> UInt64? { current?.random.next() }

    /// The effective probability and a fresh seed; 0 outside a scope.
    package static func draw(_ probability: Double) -> (probability: Double, seed: UInt64) {
        guard probability > 0, let scope = current else { return (0, 0) }
        return (probability, scope.random.next())
    }
}

/// Drops elements of x with `probability` inside a ``DropoutScope``; returns x outside.
public func dropout(_ x: Tensor, _ probability: Double) -> Tensor {
    let (probability, seed) = DropoutScope.draw(probability)
    return Functions.dropout(x, probability: probability, seed: seed)
}
