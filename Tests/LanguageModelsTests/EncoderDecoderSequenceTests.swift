import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Sequences of encoder-decoders that join and leave a batch between steps.
@Suite struct EncoderDecoderSequenceTests {
    private static let sources = [[5], (0..<23).map { 2 + $0 * 7 % 90 }, (0..<11).map { 90 - $0 * 3 }, [40, 41]]
    /// The tokens that are fed to each, the start token first.
    private static func tokens(_ row: Int) -> [Int] { [0] + (1..<6).map { 2 + (17 * $0 + 5 * row) % 90 } }

    /// The logits after each token of a sequence alone.
    private func logits(_ model: any LanguageModel, _ row: Int) throws -> [Tensor] {
        try withTorchErrors {
            withoutGradients {
                model.computing {
                    let state = model.startDecoding(
                        PackedSequences([Self.sources[row]], device: .cpu), capacity: 6, beams: 1)
                    return Self.tokens(row).map { state.step(Tensor([$0])) }
                }
            }
        }
    }

    /// Runs a batch that one more sequence joins at each step.
    /// - Parameter check: is told the logits of each sequence and token, and those that it has alone.
    private func run(_ model: any LanguageModel, _ check: (Tensor, Tensor) -> Void) throws {
        let batch = try SequenceBatch(model)
        #expect(batch.isShared && !batch.sharesPrefixes)
        let expected = try Self.sources.indices.map { try logits(model, $0) }
        // Their caches grow.
        let sequences = Self.sources.map { CachedSequence(source: $0, capacity: 2) }
        for step in 0..<(sequences.count + 5) {
            let rows = sequences.indices.filter { (0..<6).contains(step - $0) }
            let inputs = rows.map { SequenceBatch.Input(sequences[$0], tokens: [Self.tokens($0)[step - $0]]) }
            let logits = try #require(try batch.step(inputs))
            for (place, row) in rows.enumerated() {
                check(logits.narrowed(axis: 0, place..<(place + 1)), expected[row][step - row])
            }
        }
        #expect(sequences.map(\.length) == [6, 6, 6, 6])
    }

    /// Each has the logits, bit for bit, that it has alone: with relative biases of the first layer or of each, learned and
    /// sinusoidal positions.
    @Test(arguments: ["t5-v1.1", "decoders/umt5", "decoders/bart", "decoders/m2m_100"])
    func outputsDoNotDependOnOthers(name: String) throws {
        let model = try ModelFolder(Checkout.model(name)).load()
        try run(model) { #expect($0.isIdentical(to: $1)) }
    }

    /// In half precision, whose attention is one call for each sequence.
    @Test(arguments: ["t5-v1.1", "decoders/bart"]) func halfPrecisionIsNoException(name: String) throws {
        var folder = try ModelFolder(Checkout.model(name))
        folder.precision = .bfloat16
        let model = try folder.load()
        try run(model) { #expect(relativeDifference($0.to(.float32), $1.to(.float32)) < 1e-2) }
        let plain = try ModelFolder(Checkout.model(name)).load()
        #expect(try !logits(plain, 1)[5].isIdentical(to: logits(model, 1)[5].to(.float32)))
    }

    /// A copy goes on by itself from the tokens before it.
    @Test func copiesShareTheirBeginning() throws {
        let model = try ModelFolder(Checkout.model("t5-v1.1")).load()
        let batch = try SequenceBatch(model)
        let expected = try logits(model, 1)
        let sequence = CachedSequence(source: Self.sources[1], capacity: 6)
        func step(_ inputs: [(CachedSequence, Int)]) throws -> Tensor {
            try #require(try batch.step(inputs.map { SequenceBatch.Input($0.0, tokens: [$0.1]) }))
        }
        let tokens = Self.tokens(1)
        for token in tokens.prefix(3) { _ = try step([(sequence, token)]) }
        let copy = try #require(try batch.copy(of: sequence))
        let both = try step([(sequence, tokens[3]), (copy, 77)])
        #expect(both.narrowed(axis: 0, 0..<1).isIdentical(to: expected[3]))
        #expect(!both.narrowed(axis: 0, 1..<2).isIdentical(to: expected[3]))
        #expect(try step([(copy, 5), (sequence, tokens[4])]).narrowed(axis: 0, 1..<2).isIdentical(to: expected[4]))
    }

    @Test func whatCannotBeReadIsAnError() throws {
        let batch = try SequenceBatch(try ModelFolder(Checkout.model("t5-v1.1")).load())
        let several = try #require(throws: PEFTError.self) {
            try batch.step([SequenceBatch.Input(CachedSequence(source: [5], capacity: 4), tokens: [0, 7])])
        }
        #expect(several.problem.contains("several tokens"))
        let unknown = try #require(throws: PEFTError.self) {
            try batch.start([CachedSequence(source: [5, 5000], capacity: 4)])
        }
        #expect(unknown.problem.contains("5000"))
    }
}
