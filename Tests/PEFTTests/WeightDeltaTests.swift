import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Adapters with random positions, transforms and samples: what the fixtures of Hugging Face PEFT don't cover.
@Suite struct WeightDeltaTests {
    /// Values that `torch.randperm` gave in Python.
    @Test func permutationsArePyTorchs() throws {
        let short: [Int] = try withTorchErrors { Tensor.randomPermutation(12, seed: 777).array() }
        #expect(short == [11, 7, 3, 8, 0, 2, 9, 6, 4, 10, 5, 1])
        #expect(
            try withTorchErrors { RandomEntries.positions(4, of: 100_000, seed: 3) } == [58986, 64086, 32569, 61898])
    }

    /// Orthonormal filters: Σ l² = 1, Σ l = √2, and l ⊥ h and its even shifts.
    @Test(arguments: Wavelet.allCases) func filtersAreOrthonormal(wavelet: Wavelet) {
        let (low, high) = (wavelet.low, wavelet.high)
        func product(_ a: [Double], _ b: [Double], shift: Int) -> Double {
            a.indices.reduce(0) { $0 + ($1 + shift < b.count ? a[$1] * b[$1 + shift] : 0) }
        }
        #expect(abs(low.reduce(0, +) - 2.0.squareRoot()) < 1e-12)
        #expect(abs(high.reduce(0, +)) < 1e-12)
        for shift in stride(from: 0, to: low.count, by: 2) {
            #expect(abs(product(low, low, shift: shift) - (shift == 0 ? 1 : 0)) < 1e-12)
            #expect(abs(product(low, high, shift: shift)) < 1e-12)
        }
    }

    /// Settings that change the output and aren't implemented are named.
    @Test(
        arguments: [
            ("waveft", "wavelet_family", "coif1"), ("vblora", "save_only_topk_weights", true),
            ("pvera", "sample_at_inference", true), ("miss", "init_weights", "other"), ("road", "variant", "road_3"),
            ("c3a", "init_weights", "other"), ("delora", "bias", "all"), ("gralora", "gralora_k", 3),
        ] as [(String, String, JSON)]) func unsupportedSettingsAreNamed(name: String, key: String, value: JSON) throws
    {
        try withTemporaryCopy(of: HuggingFaceTests.Fixture(name).folder) { folder in
            try rewriteConfiguration(folder) { $0[key] = value }
            let error = try failure { _ = try AdapterFolder(folder) }
            #expect(error.problem.contains(key) || error.problem.contains("3 blocks"), "\(error)")
            #expect(error.remedy != nil)
        }
    }

    @Test(arguments: [[Int32.max, 0], [0, 24], [-1, 0], [0, 0]])
    func positionsOutsideTheWeightAreAnError(position: [Int32]) throws {
        let fixture = try HuggingFaceTests.Fixture("shira")
        try withTemporaryCopy(of: fixture.folder) { folder in
            let key = "base_model.model.model.layers.0.self_attn.q_proj.shira_indices"
            try rewriteTensors(folder) { tensors in
                let count = try #require(tensors[key]).dim(1)
                // The first pair twice, or one that isn't in the weight.
                let rows = [position[0]] + (1..<count).map { Int32($0 < 2 ? 0 : $0 / 24) }
                let columns = [position[1]] + (1..<count).map { Int32($0 < 2 ? 0 : $0 % 24) }
                tensors[key] = Tensor(rows + columns, shape: [2, count])
            }
            let model = try fixture.model()
            let before = try model.scores(fixture.rows)
            let error = try failure { _ = try AdapterFolder(folder).attach(to: model) }
            #expect(error.problem.contains("'shira_indices'"))
            #expect(try model.scores(fixture.rows).isIdentical(to: before))
        }
    }

    /// The means are used outside training; in training a seed decides the samples.
    @Test func activationsAreSampledInTraining() throws {
        let adapter = try HuggingFaceTests.Fixture("pvera").attach()
        func loss(_ seed: UInt64?) throws -> Double {
            try withTorchErrors {
                guard let seed else { return adapter.model.loss().item() }
                return DropoutScope.run(seed: seed, stream: 1) { adapter.model.loss().item() }
            }
        }
        #expect(try loss(nil) == loss(nil))
        #expect(try loss(3) == loss(3))
        #expect(try loss(3) != loss(4))
        #expect(try loss(3) != loss(nil))
    }
}
