import Testing

@testable import PEFTSupport

@Suite struct SeededRandomTests {
    @Test func streamsOfOneSeedAreUnrelated() {
        func values(_ seed: UInt64, _ stream: UInt64) -> [UInt64] {
            var random = SeededRandom(seed: seed, stream: stream)
            return (0..<4).map { _ in random.next() }
        }
        var seen: Set<UInt64> = []
        for seed: UInt64 in 0..<20 { for stream: UInt64 in 0..<20 { seen.formUnion(values(seed, stream)) } }
        #expect(seen.count == 20 * 20 * 4)
        #expect(values(3, 4) == values(3, 4))
    }

    @Test func boundsAreKeptAndFilledEvenly() {
        var random = SeededRandom(seed: 1)
        var counts = [Int](repeating: 0, count: 7)
        for _ in 0..<7_000 { counts[random.below(7)] += 1 }
        #expect(counts.allSatisfy { abs($0 - 1_000) < 150 })
        #expect(random.below(1) == 0 && random.below(0) == 0 && random.below(-5) == 0)
        #expect((0..<100).allSatisfy { _ in (0..<Int.max).contains(random.below(.max)) })
    }

    @Test func aStateContinues() {
        var random = SeededRandom(seed: 9)
        _ = random.next()
        var copy = SeededRandom(seed: random.state)
        #expect((0..<5).map { _ in copy.next() } == (0..<5).map { _ in random.next() })
    }
}
