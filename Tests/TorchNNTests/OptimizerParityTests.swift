import Foundation
import PEFTSupport
import Testing
import Torch

@testable import TorchNN

/// Twenty steps of each optimizer equal those of its reference implementation (`Fixtures/make_optimizers.py`).
@Suite struct OptimizerParityTests {
    private static let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Fixtures/optimizers.safetensors")
    private static let shapes = [[20, 12], [12, 20], [16, 16], [7], [2, 3, 4]]

    private func parameters(_ shapes: [[Int]] = Self.shapes) -> [Parameter] {
        shapes.map { shape in
            let count = shape.reduce(1, *)
            let tensor = Tensor((0..<count).map { Float($0 * 5003 % 1024 - 512) / 512 }, shape: shape)
            tensor.requiresGrad = true
            return Parameter(tensor)
        }
    }

    private func run(_ optimizer: any Optimizer, learningRate: Double) throws {
        for step in 1...20 {
            try withTorchErrors {
                for parameter in optimizer.parameters where parameter.tensor.requiresGrad {
                    let numbers = (0..<parameter.tensor.count).map { place in
                        Float((place * 7919 + step * 104_729) % 2048 - 1024) / 1024 / Float(1 << (place % 11))
                    }
                    parameter.tensor.grad = Tensor(numbers, shape: parameter.tensor.shape)
                }
                optimizer.update(learningRate: learningRate)
                optimizer.clearGradients()
            }
        }
    }

    private func expectEqual(_ parameters: [Parameter], _ name: String, tolerance: Float = 1e-5) throws {
        let known = try SafetensorsFile(Self.file)
        for (index, parameter) in parameters.enumerated() {
            let expected: [Float] = try known.tensor("\(name).\(index)").array()
            let own: [Float] = parameter.tensor.detached().array()
            #expect(own.count == expected.count)
            let difference = zip(own, expected).map { abs($0 - $1) }.max() ?? 0
            #expect(difference < tolerance, "\(name), parameter \(index): \(difference)")
        }
    }

    private func optimizer(_ name: String, _ parameters: [Parameter]) -> any Optimizer {
        let settings = AdamSettings(weightDecay: 0.1)
        return switch name {
        case "lion": Lion(parameters, weightDecay: 0.1)
        case "muon": Muon(parameters, weightDecay: 0.1)
        case "muon-original": Muon(parameters, matchesRMS: false, weightDecay: 0.1)
        case "schedule-free": ScheduleFreeAdamW(parameters, weightDecay: 0.1)
        case "galore":
            LowRankAdamW(parameters, rule: .gaLore(scale: 0.25), rank: 4, gap: 8, settings: settings)
        case "apollo":
            LowRankAdamW(
                parameters, rule: .apollo(scale: 1, perTensor: false), rank: 4, gap: 8, settings: settings)
        default:
            LowRankAdamW(
                parameters, rule: .apollo(scale: 128, perTensor: true), rank: 1, gap: 8, settings: settings)
        }
    }

    @Test(arguments: ["lion", "muon", "muon-original", "schedule-free", "galore", "apollo", "apollo-mini"])
    func twentyStepsEqualTheReference(name: String) throws {
        let parameters = parameters()
        let optimizer = optimizer(name, parameters)
        try run(optimizer, learningRate: name == "lion" ? 1e-3 : 1e-2)
        try expectEqual(parameters, name)
    }

    @Test func theAverageOfScheduleFreeIsEvaluated() throws {
        let parameters = parameters()
        let optimizer = ScheduleFreeAdamW(parameters, weightDecay: 0.1)
        try run(optimizer, learningRate: 1e-2)
        let trained = parameters.map { $0.tensor.detached().clone() }
        optimizer.beginEvaluation()
        try expectEqual(parameters, "schedule-free.average")
        optimizer.endEvaluation()
        for (parameter, value) in zip(parameters, trained) { #expect(parameter.tensor.isIdentical(to: value)) }
    }

    @Test func loraFAProjectsTheGradientOfB() throws {
        let parameters = parameters([[4, 12], [20, 4], [7]])
        parameters[0].tensor.requiresGrad = false
        let optimizer = LoRAFA(
            parameters, factors: [.init(a: parameters[0], b: parameters[1], scale: 2)],
            settings: AdamSettings(weightDecay: 0.1))
        try run(optimizer, learningRate: 1e-2)
        try expectEqual(parameters, "lora-fa")
    }

    /// A projection with fewer moments: r (m + n) values and less of a matrix `[m, n]`.
    @Test func lowRankOptimizersStoreLess() {
        let matrix = Parameter(Tensor.zeros([64, 32]))
        for (optimizer, values) in [
            (LowRankAdamW([matrix], rule: .gaLore(scale: 1), rank: 4, gap: 10), 2 * 64 * 4 + 4 * 32 + 1),
            (
                LowRankAdamW([matrix], rule: .apollo(scale: 1, perTensor: false), rank: 4, gap: 10),
                2 * 64 * 4 + 4 * 32 + 2
            ),
        ] {
            #expect(optimizer.state().values.reduce(0) { $0 + $1.count } == values)
        }
    }
}
