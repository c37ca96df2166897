import Foundation
import PEFTSupport
import Testing
import Torch

@testable import TorchNN

/// AdamW with moments of 8 bits does what bitsandbytes' does.
@Suite struct AdamW8bitTests {
    /// `Fixtures/make_adamw8bit.py` made it, and says how its numbers come about.
    private static let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Fixtures/adamw8bit.safetensors")
    private static let shapes = [[70, 64], [4096], [63, 65]]

    private func parameters() -> [Parameter] {
        Self.shapes.map { shape in
            let count = shape.reduce(1, *)
            let tensor = Tensor((0..<count).map { Float($0 * 5003 % 1024 - 512) / 512 }, shape: shape)
            tensor.requiresGrad = true
            return Parameter(tensor)
        }
    }

    private func steps(_ optimizer: any Optimizer, _ range: ClosedRange<Int>, rate: Double = 1e-2) throws {
        for step in range {
            try withTorchErrors {
                for parameter in optimizer.parameters {
                    let numbers = (0..<parameter.tensor.count).map { place in
                        Float((place * 7919 + step * 104_729) % 2048 - 1024) / 1024 / Float(1 << (place % 11))
                    }
                    parameter.tensor.grad = Tensor(numbers, shape: parameter.tensor.shape)
                }
                optimizer.update(learningRate: rate)
                optimizer.clearGradients()
            }
        }
    }

    private func difference(_ a: Tensor, _ b: Tensor) -> Float {
        let (x, y): ([Float], [Float]) = (a.array(), b.array())
        return x.count == y.count ? zip(x, y).map { abs($0 - $1) }.max() ?? 0 : .infinity
    }

    @Test func mapsAreThoseOfBitsandbytes() throws {
        let known = try SafetensorsFile(Self.file)
        #expect(OptimizerKernels.dynamicMap(isSigned: true).isIdentical(to: try known.tensor("signed")))
        #expect(OptimizerKernels.dynamicMap(isSigned: false).isIdentical(to: try known.tensor("unsigned")))
    }

    @Test func twentyStepsEqualBitsandbytes() throws {
        let known = try SafetensorsFile(Self.file)
        let parameters = parameters()
        let optimizer = AdamW8bit(parameters, weightDecay: 0.1)
        try steps(optimizer, 1...20)
        for (index, parameter) in parameters.enumerated() {
            #expect(difference(parameter.tensor, try known.tensor("\(index)")) < 1e-5, "parameter \(index)")
        }
        let state = optimizer.state()
        for index in 0..<2 {
            for (name, theirs) in [("first", "1"), ("second", "2")] {
                let codes: [Int] = try #require(state["\(name).\(index)"]).to(.int64).array()
                let expected: [Int] = try known.tensor("\(index).state\(theirs)").to(.int64).array()
                // A number on the edge of two codes may fall to either side where sums are rounded otherwise.
                let others = zip(codes, expected).filter { $0 != $1 }
                #expect(codes.count == expected.count && others.allSatisfy { abs($0 - $1) == 1 })
                #expect(others.count <= codes.count / 500, "\(others.count) codes differ")
                let scales = try #require(state["\(name).\(index).scales"])
                let largest = try known.tensor("\(index).absmax\(theirs)")
                #expect(difference(scales / largest, .ones(largest.shape)) < 1e-5)
            }
        }
        #expect(state["first.2"]?.dtype == .float32 && state["first.2.scales"] == nil)
    }

    @Test func aRestoredStateContinuesBitForBit() throws {
        let whole = parameters()
        let first = AdamW8bit(whole)
        try steps(first, 1...3)
        let state = first.state().mapValues { $0.clone() }
        let values = whole.map { $0.tensor.detached().clone() }
        try steps(first, 4...6)

        let resumed = parameters()
        for (parameter, value) in zip(resumed, values) { parameter.tensor.copy(from: value) }
        let second = AdamW8bit(resumed)
        try second.restore(state, step: 3)
        try steps(second, 4...6)
        for (a, b) in zip(resumed, whole) { #expect(a.tensor.isIdentical(to: b.tensor)) }
        for (name, tensor) in first.state() { #expect(second.state()[name]?.isIdentical(to: tensor) == true) }
        var missing = state
        missing["second.0.scales"] = nil
        #expect(throws: PEFTError.self) { try second.restore(missing, step: 9) }
        #expect(second.step == 6)
    }

    /// What a step doesn't reach keeps its moments and its count, and a rate of its own is used.
    @Test func parametersAreCountedOneByOne() throws {
        let (list, alone) = (parameters(), parameters())
        let (optimizer, one) = (AdamW8bit(list, rateFactors: [1, 3, 1]), AdamW8bit([alone[1]]))
        try withTorchErrors {
            list[0].tensor.grad = .ones([70, 64])
            optimizer.update(learningRate: 1e-2)
            optimizer.clearGradients()
        }
        #expect(list[1].tensor.isIdentical(to: alone[1].tensor))
        try steps(optimizer, 1...2, rate: 1e-2)
        try steps(one, 1...2, rate: 3e-2)
        #expect(list[1].tensor.isIdentical(to: alone[1].tensor))
    }
}
