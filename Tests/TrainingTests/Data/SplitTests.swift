import PEFTSupport
import Testing

@testable import Training

@Suite struct SplitTests {
    /// The first outputs of the reference implementation (Vigna, splitmix64.c) for seed 1234567.
    @Test func splitMix64() {
        var random = SeededRandom(seed: 1_234_567)
        let expected: [UInt64] = [
            6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
            4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
        ]
        #expect((0..<5).map { _ in random.next() } == expected)
    }

    /// Fixed numbers: a permutation that changed would change every published split.
    @Test func permutationsAreStable() {
        #expect(SeededRandom.permutation(count: 10, seed: 42) == [8, 3, 6, 5, 4, 0, 9, 2, 1, 7])
        #expect(SeededRandom.permutation(count: 0, seed: 1) == [])
        #expect(SeededRandom.permutation(count: -1, seed: 1) == [])
        #expect(SeededRandom.permutation(count: 1, seed: 1) == [0])
    }

    @Test func permutationsHoldEveryIndex() {
        for seed in 0..<20 as Range<UInt64> {
            #expect(SeededRandom.permutation(count: 100, seed: seed).sorted() == Array(0..<100))
        }
        #expect(SeededRandom.permutation(count: 100, seed: 1) != SeededRandom.permutation(count: 100, seed: 2))
    }

    /// χ² over the 24 orders of four elements, 23 degrees of freedom: 49.7 has probability 0.1 %.
    @Test func ordersAreEquallyLikely() {
        var counts: [[Int]: Double] = [:]
        for seed in 0..<24_000 as Range<UInt64> {
            counts[SeededRandom.permutation(count: 4, seed: seed), default: 0] += 1
        }
        #expect(counts.count == 24)
        let chiSquared = counts.values.reduce(0) { $0 + ($1 - 1_000) * ($1 - 1_000) / 1_000 }
        #expect(chiSquared < 49.7)
    }

    @Test func boundsHold() {
        var random = SeededRandom(seed: 0)
        #expect(random.below(0) == 0)
        #expect(random.below(-5) == 0)
        #expect((0..<1_000).allSatisfy { _ in (0..<7).contains(random.below(7)) })
        #expect((0..<100).allSatisfy { _ in random.below(.max) >= 0 })
    }

    @Test func statesResume() {
        var random = SeededRandom(seed: 3)
        _ = random.next()
        var resumed = SeededRandom(seed: random.state)
        #expect(resumed.next() == random.next())
    }

    @Test func splitsAreDeterministicAndOrdered() throws {
        let rows = Array(0..<100)
        let first = try split(rows, heldOut: .fraction(0.2), seed: 7)
        let second = try split(rows, heldOut: .count(20), seed: 7)
        #expect(first.heldOut == second.heldOut && first.training == second.training)
        #expect(first.heldOut.count == 20)
        #expect(first.heldOut == first.heldOut.sorted() && first.training == first.training.sorted())
        #expect(Set(first.heldOut).union(first.training).count == 100)
        #expect(try split(rows, heldOut: .count(20), seed: 8).heldOut != first.heldOut)
        let smaller = try split(rows, heldOut: .count(5), seed: 7)
        #expect(Set(smaller.heldOut).isSubset(of: first.heldOut))
    }

    @Test func smallSharesHoldOutOneRow() throws {
        #expect(try split([1, 2, 3], heldOut: .fraction(0.01), seed: 0).heldOut.count == 1)
        #expect(try split([1, 2, 3], heldOut: .fraction(0.99), seed: 0).training.count == 1)
    }

    @Test(arguments: [HeldOut.count(0), .count(-1), .count(3), .fraction(0), .fraction(1), .fraction(.nan)])
    func impossibleSplits(heldOut: HeldOut) {
        #expect(throws: PEFTError.self) { try split([1, 2, 3], heldOut: heldOut, seed: 0) }
    }

    @Test func oneRowCannotBeSplit() {
        #expect(throws: PEFTError.self) { try split([1], heldOut: .fraction(0.5), seed: 0) }
        #expect(throws: PEFTError.self) { try split([Int](), heldOut: .count(1), seed: 0) }
    }

    // MARK: Classes

    @Test func classesKeepTheirShares() throws {
        let classes = (0..<200).map { $0 % 10 == 0 ? "rare" : $0 % 2 == 0 ? "even" : "odd" }
        let parts = try split(Array(0..<200), heldOut: .fraction(0.1), seed: 3, classes: classes)
        #expect(parts.training.count == 180 && parts.heldOut.count == 20)
        #expect(parts.training == parts.training.sorted() && parts.heldOut == parts.heldOut.sorted())
        let counts = Dictionary(parts.heldOut.map { (classes[$0], 1) }, uniquingKeysWith: +)
        #expect(counts == ["rare": 2, "even": 8, "odd": 10])
        #expect(
            try split(Array(0..<200), heldOut: .fraction(0.1), seed: 3, classes: classes).heldOut == parts.heldOut)
        #expect(
            try split(Array(0..<200), heldOut: .fraction(0.1), seed: 4, classes: classes).heldOut != parts.heldOut)
    }

    @Test func everyClassStaysInTraining() throws {
        for share in [0.1, 0.3, 0.5, 0.9] {
            for seed in 0..<5 as Range<UInt64> {
                let classes = (0..<30).map { $0 < 8 ? "single \($0)" : $0 < 12 ? "few" : "many" }
                let parts = try split(Array(0..<30), heldOut: .fraction(share), seed: seed, classes: classes)
                #expect(Set(parts.training.map { classes[$0] }).count == 10)
                #expect(parts.heldOut.count == min(Int((30 * share).rounded()), 20))
            }
        }
        // Where each class has one row, there is nothing to keep.
        let singles = try split(["a", "b", "c"], heldOut: .count(1), seed: 0, classes: ["a", "b", "c"])
        #expect(singles.heldOut.count == 1)
    }

    // MARK: Parts of encoded rows, and rows in both

    private func encoded(_ rows: Range<Int>) -> [EncodedExample] {
        rows.map { EncodedExample(input: [$0, $0 + 1], target: [7]) }
    }

    @Test func selectedRows() {
        let rows = EncodedRows(encoded(0..<6)).selecting([5, 3, 1])
        #expect(rows.map(\.input) == [[5, 6], [3, 4], [1, 2]])
        #expect(rows.lengths == [3, 3, 3])
        #expect(rows.selecting([2, 0]).map(\.input) == [[1, 2], [5, 6]])
    }

    @Test func sharedRowsAreCounted() {
        let training = EncodedRows(encoded(0..<6))
        #expect(SharedExamples.count(encoded(4..<9), in: training) == 2)
        #expect(SharedExamples.count([EncodedExample(input: [0], target: [1, 7])], in: training) == 0)
        func example(_ prompt: String, _ target: String, _ number: Int) -> Example {
            Example(prompt: prompt, target: target, row: .init(file: "a", number: number))
        }
        let examples = [example("a", "b", 1), example("ab", "", 2), example("c", "d", 3)]
        #expect(SharedExamples.count([example("a", "b", 7), example("c", "e", 8)], in: examples) == 1)
    }
}
