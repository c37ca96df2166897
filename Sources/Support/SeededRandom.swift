/// A random number generator that is reproducible by seed on every platform and in every version.
///
/// SplitMix64: Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014. Its state
/// is one word, so a run that resumes stores ``state`` and continues exactly.
public struct SeededRandom: RandomNumberGenerator, Sendable, Hashable, Codable {
    package private(set) var state: UInt64

    /// - Parameter seed: generators with equal seeds draw equal numbers, on every machine.
    public init(seed: UInt64) { state = seed }

    /// An independent stream for a part of the work, such as one training step.
    public init(seed: UInt64, stream: UInt64) {
        var outer = SeededRandom(seed: seed)
        state = outer.next() ^ (stream &* 0xD1B5_4A32_D192_ED03)
        _ = next()
    }

    /// The next 64 bits (SplitMix64).
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A uniform integer in `0 ..< bound`; 0 if `bound` is below 2.
    ///
    /// Written out (Lemire, *Fast random integer generation in an interval*, 2019) because the standard
    /// library doesn't promise to draw the same way in every version.
    public mutating func below(_ bound: Int) -> Int {
        guard bound > 1 else { return 0 }
        let range = UInt64(bound)
        var product = next().multipliedFullWidth(by: range)
        if product.low < range {
            let threshold = (0 &- range) % range
            while product.low < threshold { product = next().multipliedFullWidth(by: range) }
        }
        return Int(product.high)
    }

    /// Shuffles in place (Fisher–Yates), uniformly.
    package mutating func shuffle<Element>(_ elements: inout [Element]) {
        for last in stride(from: elements.count - 1, to: 0, by: -1) {
            elements.swapAt(last, below(last + 1))
        }
    }

    /// A permutation of `0 ..< count` that depends on `seed` only; empty if `count` is not positive.
    package static func permutation(count: Int, seed: UInt64) -> [Int] {
        var order = Array(0..<max(0, count))
        var random = SeededRandom(seed: seed)
        random.shuffle(&order)
        return order
    }
}
