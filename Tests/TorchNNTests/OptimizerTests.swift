import Foundation
import PEFTSupport
import Testing
import Torch

@testable import TorchNN

@Suite struct LearningRateScheduleTests {
    /// The lambdas of transformers 5.23 `get_scheduler` over 20 steps, warm-up 5, at a few of them.
    @Test(arguments: [
        (
            LearningRateSchedule.Shape.linear,
            [
                0: 0.0, 3: 0.6, 5: 1, 6: 0.9333333333333333, 12: 0.5333333333333333, 19: 0.06666666666666667, 20: 0,
                25: 0,
            ]
        ),
        (
            .cosine,
            [0: 0.0, 3: 0.6, 5: 1, 6: 0.9890738003669028, 12: 0.5522642316338268, 19: 0.010926199633097211, 20: 0]
        ),
        (.constant, [0: 0.0, 3: 0.6, 5: 1, 6: 1, 12: 1, 19: 1, 20: 1]),
        (.inverseSquareRoot, [0: 0.0, 3: 0.6, 5: 1, 6: 0.9128709291752769, 12: 0.6454972243679028, 20: 0.5]),
    ]) func equalsTransformers(shape: LearningRateSchedule.Shape, expected: [Int: Double]) {
        let schedule = LearningRateSchedule(shape, warmup: 5, total: 20)
        for (step, factor) in expected {
            #expect(abs(schedule.factor(after: step) - factor) < 1e-14, "step \(step)")
        }
    }

    @Test(arguments: LearningRateSchedule.Shape.allCases) func withoutWarmUpTheFirstStepIsFull(
        shape: LearningRateSchedule.Shape
    ) {
        #expect(LearningRateSchedule(shape, total: 10).factor(after: 0) == 1)
        for step in 0..<40 {
            let factor = LearningRateSchedule(shape, warmup: 30, total: 30).factor(after: step)
            #expect(factor >= 0 && factor <= 1)
        }
    }

    @Test func inverseSquareRootWithoutWarmUpHasAScaleOfTenThousandSteps() {
        let schedule = LearningRateSchedule(.inverseSquareRoot, total: 50_000)
        #expect(abs(schedule.factor(after: 30_000) - 0.5) < 1e-15)
    }
}

@Suite struct OptimizerTests {
    static let kinds = [
        "adamw", "adafactor", "scaled adafactor", "lion", "muon", "schedule-free", "lora-fa", "galore", "apollo",
    ]

    private func parameters() -> [Parameter] {
        var random = SeededRandom(seed: 3)
        return [[4, 3], [5], [2, 3, 4]].map { shape in
            let tensor = Tensor.empty(shape)
            tensor.fillNormal(from: &random)
            tensor.requiresGrad = true
            return Parameter(tensor)
        }
    }

    private func optimizer(_ kind: String, _ parameters: [Parameter]) -> any Optimizer {
        switch kind {
        case "adamw": AdamW(parameters, weightDecay: 0.1)
        case "adafactor": Adafactor(parameters, weightDecay: 0.1)
        case "lion": Lion(parameters)
        case "muon": Muon(parameters)
        case "schedule-free": ScheduleFreeAdamW(parameters)
        case "lora-fa": LoRAFA(parameters, factors: [])
        case "galore": LowRankAdamW(parameters, rule: .gaLore(scale: 0.5), rank: 2, gap: 2)
        case "apollo": LowRankAdamW(parameters, rule: .apollo(scale: 2, perTensor: false), rank: 2, gap: 2)
        default: Adafactor(parameters, scaleParameter: true)
        }
    }

    private func step(_ optimizer: any Optimizer, _ number: Int) throws {
        var random = SeededRandom(seed: 100 + UInt64(number))
        try withTorchErrors {
            for parameter in optimizer.parameters {
                let gradient = Tensor.empty(parameter.tensor.shape)
                gradient.fillNormal(from: &random)
                parameter.tensor.grad = gradient
            }
            optimizer.update(learningRate: 0.05)
            optimizer.clearGradients()
        }
    }

    private func values(_ parameters: [Parameter]) -> [[Float]] { parameters.map { $0.tensor.array() } }

    @Test(arguments: kinds) func aRestoredStateContinuesBitForBit(kind: String) throws {
        let whole = parameters()
        let first = optimizer(kind, whole)
        for number in 0..<3 { try step(first, number) }
        let saved = first.state().mapValues { $0.clone() }
        let half = values(whole)
        for number in 3..<6 { try step(first, number) }

        let resumed = parameters()
        for (parameter, numbers) in zip(resumed, half) {
            parameter.tensor.copy(from: Tensor(numbers, shape: parameter.tensor.shape))
        }
        let second = optimizer(kind, resumed)
        try second.restore(saved, step: 3)
        #expect(second.step == 3)
        for number in 3..<6 { try step(second, number) }
        #expect(values(resumed) == values(whole))
        for (name, tensor) in first.state() {
            #expect(second.state()[name]?.isIdentical(to: tensor) == true, "\(name)")
        }
        // Taking over a state doesn't tie the optimizer to the tensors it came in.
        #expect(saved.allSatisfy { second.state()[$0.key]?.isIdentical(to: $0.value) == false })
    }

    @Test(arguments: kinds) func aWrongStateChangesNothing(kind: String) throws {
        let optimizer = optimizer(kind, parameters())
        try step(optimizer, 0)
        let state = optimizer.state().mapValues { $0.clone() }
        let name = try #require(state.keys.max())
        var missing = state
        missing[name] = nil
        let error = try #require(throws: PEFTError.self) { try optimizer.restore(missing, step: 7) }
        #expect(error.problem.contains(name))
        var misshapen = state.mapValues { $0 * 2 }
        misshapen[name] = .zeros([17])
        #expect(
            try #require(throws: PEFTError.self) { try optimizer.restore(misshapen, step: 7) }.problem.contains(
                "[17]"))
        #expect(optimizer.step == 1)
        for (name, tensor) in state { #expect(optimizer.state()[name]?.isIdentical(to: tensor) == true) }
    }

    @Test(arguments: kinds) func whatHasNoGradientStays(kind: String) throws {
        let list = parameters()
        let optimizer = optimizer(kind, list)
        let before = values(list)
        try withTorchErrors {
            list[1].tensor.grad = .ones([5])
            optimizer.update(learningRate: 0.1)
        }
        #expect(values(list)[0] == before[0] && values(list)[2] == before[2])
        #expect(values(list)[1] != before[1])
        optimizer.clearGradients()
        #expect(list.allSatisfy { $0.tensor.grad == nil })
    }

    /// PyTorch counts steps for each parameter: the first gradient of a parameter that missed some is corrected as a first
    /// one, so that the update is the rate times the gradient's sign.
    @Test func stepsAreCountedForEachParameter() throws {
        let (early, late) = (Parameter(Tensor([1.0, -2.0], shape: [2])), Parameter(Tensor([1.0, -2.0], shape: [2])))
        let optimizer = AdamW([early, late], rateFactors: [1, 1], weightDecay: 0)
        let gradient = [0.5, -0.25]
        for parameters in [[early], [early], [early, late]] {
            try withTorchErrors {
                for parameter in parameters { parameter.tensor.grad = Tensor(gradient, shape: [2]) }
                optimizer.update(learningRate: 0.1)
                optimizer.clearGradients()
            }
        }
        #expect(optimizer.step == 3)
        let once = late.tensor.array(Double.self)
        #expect(zip(once, [0.9, -1.9]).allSatisfy { abs($0 - $1) < 1e-6 }, "\(once)")
        // A constant gradient is corrected to itself in every step.
        let thrice = early.tensor.array(Double.self)
        #expect(zip(thrice, [0.7, -1.7]).allSatisfy { abs($0 - $1) < 1e-6 }, "\(thrice)")

        // The counts are part of the state; a state without them, as older checkpoints have it, counts all steps.
        let state = optimizer.state()
        #expect(state["counts"]?.array(Double.self) == [3, 1])
        for (isOld, expected) in [(false, [4.0, 2]), (true, [4, 4])] {
            let again = AdamW([early, late], rateFactors: [1, 1], weightDecay: 0)
            try again.restore(isOld ? state.filter { $0.key != "counts" } : state, step: 3)
            try withTorchErrors {
                for parameter in [early, late] { parameter.tensor.grad = Tensor(gradient, shape: [2]) }
                again.update(learningRate: 0.1)
            }
            #expect(again.state()["counts"]?.array(Double.self) == expected)
        }
    }

    /// Adafactor's first step: β is 0, so the second moment is the squared gradient itself.
    @Test func adafactorsFirstStep() throws {
        let vector = Parameter(Tensor([1, 2, 3] as [Float]))
        let matrix = Parameter(Tensor.zeros([2, 2]))
        for parameter in [vector, matrix] { parameter.tensor.requiresGrad = true }
        vector.tensor.grad = Tensor([4, -9, 0.5] as [Float])
        matrix.tensor.grad = Tensor([1, 2, 3, 4] as [Float], shape: [2, 2])
        Adafactor([vector, matrix]).update(learningRate: 0.1)
        let moved: [Double] = vector.tensor.array()
        #expect(zip(moved, [0.9, 2.1, 2.9]).allSatisfy { abs($0 - $1) < 1e-6 })
        // Row means 2.5 and 12.5, column means 5 and 10: u = g / √(row · column / 7.5), then clipped to size 1.
        let updates = [1 / (2.5 * 5 / 7.5), 4 / (2.5 * 10 / 7.5), 9 / (12.5 * 5 / 7.5), 16 / (12.5 * 10 / 7.5)].map(
            sqrt)
        let size = max(1, sqrt(updates.map { $0 * $0 }.reduce(0, +) / 4))
        let expected = updates.map { -0.1 * $0 / size }
        #expect(zip(matrix.tensor.array(Double.self), expected).allSatisfy { abs($0 - $1) < 1e-6 })
    }
}
