import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import LanguageModels

/// Sampling of one sequence; `make_sampling_fixtures.py` wrote the scores of transformers' processors and warpers.
@Suite struct TokenSamplerTests {
    private func cases() throws -> [JSON] {
        let fixtures = try #require(Bundle.module.resourceURL?.appendingPathComponent("Fixtures"))
        return try JSON.read(fixtures.appendingPathComponent("sampling.json")).array ?? []
    }

    private func parameters(_ json: JSON?) -> SamplingParameters {
        var parameters = SamplingParameters()
        if let value = json?["temperature"]?.double { parameters.temperature = value }
        if let value = json?["topK"]?.int { parameters.topK = value }
        if let value = json?["topP"]?.double { parameters.topP = value }
        if let value = json?["minP"]?.double { parameters.minP = value }
        if let value = json?["repetitionPenalty"]?.double { parameters.repetitionPenalty = value }
        if let value = json?["presencePenalty"]?.double { parameters.presencePenalty = value }
        if let value = json?["frequencyPenalty"]?.double { parameters.frequencyPenalty = value }
        for (token, bias) in json?["logitBias"]?.object ?? [:] {
            if let token = Int(token) { parameters.logitBias[token] = bias.double }
        }
        return parameters
    }

    private func logits(_ json: JSON) -> [Float] { (json["logits"]?.array ?? []).map { Float($0.double ?? .nan) } }

    @Test func processedLogitsEqualTransformers() throws {
        let cases = try cases()
        #expect(cases.count == 40)
        for item in cases {
            let sampler = try TokenSampler(parameters(item["parameters"]))
            let row = sampler.processed(
                logits(item), prompt: item["prompt"]?.integers ?? [], generated: item["generated"]?.integers ?? [])
            let expected = (item["scores"]?.array ?? []).map(\.double)
            #expect(row.count == expected.count && row.count == 48)
            let differing = zip(row, expected).contains { mine, other in
                guard let other else { return mine != -.infinity }
                return !(abs(Double(mine) - other) <= 1e-6 * max(1, abs(other)))
            }
            #expect(!differing, "\(item["parameters"]?.text(indent: nil) ?? "")")
        }
    }

    @Test func logProbabilitiesAreThoseOfTheModel() throws {
        for item in try cases() {
            var parameters = parameters(item["parameters"])
            parameters.logProbabilities = 5
            let row = logits(item)
            let choice = try TokenSampler(parameters).choose(
                row, prompt: item["prompt"]?.integers ?? [], generated: item["generated"]?.integers ?? [])
            let expected = item["top"]?.array ?? []
            #expect(choice.top.map(\.token) == expected.compactMap { $0.array?.first?.int })
            for (mine, other) in zip(choice.top, expected) {
                #expect(abs(mine.value - (other.array?.last?.double ?? .nan)) < 1e-6)
            }
            // The chosen token's, relative to the best one's.
            let value = try #require(choice.logProbability)
            let distance = Double(row[choice.token]) - Double(row[choice.top[0].token])
            #expect(abs(value - choice.top[0].value - distance) < 1e-6)
        }
    }

    @Test func drawsFollowTheDistribution() throws {
        let row: [Float] = [0, 1, -1, 2, -.infinity]
        let total = row.reduce(0) { $0 + exp(Double($1)) }
        var counts = [Int](repeating: 0, count: row.count)
        let draws = 20_000
        for seed in 0..<(draws / 4) {
            let sampler = try TokenSampler(SamplingParameters(seed: UInt64(seed)))
            for position in 0..<4 { counts[try sampler.pick(row, position: position)] += 1 }
        }
        for (count, value) in zip(counts, row) {
            let expected = exp(Double(value)) / total
            // Five standard deviations.
            let bound = 5 * (expected * (1 - expected) / Double(draws)).squareRoot()
            #expect(abs(Double(count) / Double(draws) - expected) <= bound)
        }
    }

    @Test func drawsAreAFunctionOfSeedAndPosition() throws {
        let row = (0..<64).map { Float($0 % 7) * 0.1 }
        let sampler = try TokenSampler(SamplingParameters(seed: 5))
        let tokens = try (0..<40).map { try sampler.choose(row, prompt: [1], generated: Array(0..<$0)).token }
        let again = try (0..<40).reversed().map {
            try sampler.choose(row, prompt: [], generated: Array(0..<$0)).token
        }
        #expect(tokens == again.reversed() && Set(tokens).count > 10)
        let other = try TokenSampler(SamplingParameters(seed: 6))
        #expect(try (0..<40).map { try other.choose(row, prompt: [1], generated: Array(0..<$0)).token } != tokens)
        #expect(
            try TokenSampler(SamplingParameters(temperature: 0)).choose([1, 3, 3], prompt: [], generated: []).token
                == 1)
    }

    @Test func masksRestrictAndDeadRowsAreErrors() throws {
        var mask = TokenMask(vocabulary: 70)
        for token in [3, 64, 69, 70, -1] { mask.insert(token) }
        #expect(mask.tokens == [3, 64, 69] && mask.count == 3 && !mask.isEmpty && mask.contains(64))
        let row = (0..<70).map { Float($0 % 5) }
        for seed in 0..<20 {
            let sampler = try TokenSampler(SamplingParameters(topK: 2, seed: UInt64(seed)))
            // 64 and 69 have the largest of the three logits.
            #expect([64, 69].contains(try sampler.choose(row, prompt: [], generated: [], mask: mask).token))
        }
        let sampler = try TokenSampler(SamplingParameters())
        #expect(throws: PEFTError.self) {
            try sampler.choose(row, prompt: [], generated: [], mask: TokenMask(vocabulary: 70))
        }
        #expect(throws: PEFTError.self) { try sampler.choose([.nan, .nan], prompt: [], generated: []) }
        #expect(throws: PEFTError.self) { try sampler.choose([1, .nan], prompt: [], generated: []) }
        #expect(throws: PEFTError.self) { try sampler.choose([], prompt: [], generated: []) }
    }

    @Test(arguments: [
        ("temperature", SamplingParameters(temperature: -1)), ("top-k", SamplingParameters(topK: -1)),
        ("top-p", SamplingParameters(topP: 0)), ("min-p", SamplingParameters(minP: 1.5)),
        ("repetition", SamplingParameters(repetitionPenalty: 0)),
        ("presence", SamplingParameters(presencePenalty: 2.5)),
        ("frequency", SamplingParameters(frequencyPenalty: .nan)),
        ("token -1", SamplingParameters(logitBias: [-1: 0])), ("token 3 is", SamplingParameters(logitBias: [3: 101])),
        ("logprobs", SamplingParameters(logProbabilities: 21)),
    ])
    func valuesOutOfRangeAreErrors(name: String, parameters: SamplingParameters) throws {
        let error = try #require(throws: PEFTError.self) { try TokenSampler(parameters) }
        #expect(error.description.contains(name) && error.remedy != nil)
    }
}
