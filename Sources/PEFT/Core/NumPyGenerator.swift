/// The values of `numpy.random.default_rng(seed)`, for files that store a seed instead of what was drawn from it: PCG64
/// (XSL-RR 128/64, O'Neill 2014) seeded by a `SeedSequence`.
struct NumPyGenerator {
    private var state: Wide
    private let increment: Wide
    /// The upper half of the last 64 bits, if only the lower half was used.
    private var half: UInt32?

    /// An unsigned integer of 128 bits, modulo 2¹²⁸.
    private struct Wide {
        var high: UInt64
        var low: UInt64

        static func + (a: Wide, b: Wide) -> Wide {
            let (low, carries) = a.low.addingReportingOverflow(b.low)
            return Wide(high: a.high &+ b.high &+ (carries ? 1 : 0), low: low)
        }

        static func * (a: Wide, b: Wide) -> Wide {
            let (high, low) = a.low.multipliedFullWidth(by: b.low)
            return Wide(high: high &+ a.high &* b.low &+ a.low &* b.high, low: low)
        }
    }

    private static let multiplier = Wide(high: 2_549_297_995_355_413_924, low: 4_865_540_595_714_422_341)

    init(seed: UInt64) {
        let words = Self.seedWords(seed)
        let start = Wide(high: words[0], low: words[1])
        increment = Wide(high: words[2] << 1 | words[3] >> 63, low: words[3] << 1 | 1)
        state = Wide(high: 0, low: 0)
        step()
        state = state + start
        step()
    }

    /// The first four 64-bit words of NumPy's `SeedSequence(seed)`.
    private static func seedWords(_ seed: UInt64) -> [UInt64] {
        var constant: UInt32 = 0x43B0_D7E5
        func hashed(_ value: UInt32, by factor: UInt32) -> UInt32 {
            var value = value ^ constant
            constant = constant &* factor
            value = value &* constant
            return value ^ value >> 16
        }
        var pool = [UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32), 0, 0].map {
            hashed($0, by: 0x931E_8875)
        }
        for source in 0..<4 {
            for target in 0..<4 where target != source {
                let mixed = hashed(pool[source], by: 0x931E_8875)
                let sum = pool[target] &* 0xCA01_F9DD &- mixed &* 0x4973_F715
                pool[target] = sum ^ sum >> 16
            }
        }
        constant = 0x8B51_F9DD
        let halves = (0..<8).map { hashed(pool[$0 % 4], by: 0x58F3_8DED) }
        return (0..<4).map { UInt64(halves[2 * $0]) | UInt64(halves[2 * $0 + 1]) << 32 }
    }

    private mutating func step() { state = state * Self.multiplier + increment }

    private mutating func next32() -> UInt32 {
        if let known = half {
            half = nil
            return known
        }
        step()
        let (mixed, turn) = (state.high ^ state.low, state.high >> 58)
        let bits = mixed >> turn | mixed << ((64 &- turn) & 63)
        half = UInt32(truncatingIfNeeded: bits >> 32)
        return UInt32(truncatingIfNeeded: bits)
    }

    /// Uniform in 0...`most`, by Lemire's multiplication, which `choice` uses.
    private mutating func multiplied(upTo most: UInt32) -> Int {
        guard most > 0 else { return 0 }
        guard most < .max else { return Int(next32()) }
        let count = UInt64(most) + 1
        var product = UInt64(next32()) * count
        if product & 0xFFFF_FFFF < count {
            let threshold = UInt64(UInt32.max - most) % count
            while product & 0xFFFF_FFFF < threshold { product = UInt64(next32()) * count }
        }
        return Int(product >> 32)
    }

    /// Uniform in 0...`most`, by masked rejection, which `shuffle` uses.
    private mutating func masked(upTo most: UInt32) -> Int {
        guard most > 0 else { return 0 }
        let mask = UInt32.max >> UInt32(most.leadingZeroBitCount)
        while true {
            let value = next32() & mask
            if value <= most { return Int(value) }
        }
    }

    /// `shuffle`: all values in random order. There may be at most 2³² of them.
    mutating func shuffle(_ values: inout [Int]) {
        for index in stride(from: values.count - 1, to: 0, by: -1) {
            values.swapAt(index, masked(upTo: UInt32(truncatingIfNeeded: index)))
        }
    }

    /// `choice(count, size, replace=False)`: `size` of the values below `count`, in random order.
    mutating func choice(_ size: Int, below count: Int) -> [Int] {
        var chosen: [Int] = []
        var first = 1
        if count > 10000, size > count / 50 {
            chosen = Array(0..<count)
            first = max(count - size, 1)
        } else {
            var seen: Set<Int> = []
            for last in (count - size)..<count {
                var value = multiplied(upTo: UInt32(truncatingIfNeeded: last))
                if !seen.insert(value).inserted {
                    value = last
                    seen.insert(value)
                }
                chosen.append(value)
            }
        }
        for index in stride(from: chosen.count - 1, through: first, by: -1) {
            chosen.swapAt(index, multiplied(upTo: UInt32(truncatingIfNeeded: index)))
        }
        return Array(chosen.suffix(size))
    }
}
