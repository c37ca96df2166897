import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// The fused kernels of layers with states against the compositions that float64 tensors take.
@Suite struct RecurrenceKernelTests {
    /// One that fits into a vector of no processor; several heads of a key head; whole panels; and more heads of a key head than a
    /// work item has.
    static let sizes = [
        (keyHeads: 2, heads: 2, keySize: 3, valueSize: 2), (2, 6, 20, 17), (1, 2, 32, 64), (2, 18, 5, 4),
    ].map {
        Recurrence(.gatedDelta, keyHeads: $0.keyHeads, heads: $0.heads, keySize: $0.keySize, valueSize: $0.valueSize)
    }

    /// Of each sequence: none; few tokens, which are computed one by one; parts of a chunk, a whole one, and several.
    private static let offsets = [0, 5, 5, 37, 38, 118, 120]

    /// Normal values.
    private func random(_ shape: [Int], seed: UInt64) -> Tensor {
        let x = Tensor.empty(shape, dtype: .float64)
        x.fillNormal(seed: seed)
        return x
    }

    /// Outputs of a function of float32 and float64 inputs, and the gradients of a weighted sum of them.
    private func compare(
        _ inputs: [Tensor], value: Double = 1e-5, gradient: Double = 2e-5,
        _ function: ([Tensor]) -> [Tensor]
    ) throws {
        func results(_ type: DType) throws -> (outputs: [Tensor], gradients: [Tensor?]) {
            let leaves = inputs.map { $0.to(type).clone() }
            for leaf in leaves { leaf.requiresGrad = true }
            return try withTorchErrors {
                let outputs = function(leaves)
                let sums = outputs.enumerated().map { index, x in
                    (x * random(x.shape, seed: 90 + UInt64(index)).to(type)).sum()
                }
                sums.dropFirst().reduce(sums[0]) { $0 + $1 }.backward()
                return (outputs.map { $0.detached() }, leaves.map(\.grad))
            }
        }
        let (narrow, wide) = try (results(.float32), results(.float64))
        #expect(
            narrow.outputs.allSatisfy { $0.dtype == .float32 } && wide.outputs.allSatisfy { $0.dtype == .float64 })
        for (index, (a, b)) in zip(narrow.outputs, wide.outputs).enumerated() {
            #expect(relativeDifference(a.to(.float64), b) < value, "output \(index)")
        }
        for (index, (a, b)) in zip(narrow.gradients, wide.gradients).enumerated() {
            #expect((a == nil) == (b == nil), "gradient \(index)")
            guard let a, let b else { continue }
            #expect(relativeDifference(a.to(.float64), b) < gradient, "gradient \(index)")
        }
    }

    /// Of inputs, logits of rates, decays before the softplus, and memories.
    private func inputs(_ sizes: Recurrence, memory: [Int]) -> [Tensor] {
        let tokens = Self.offsets.last ?? 0
        return [
            random([tokens, sizes.width], seed: 1), random([tokens, sizes.heads], seed: 2),
            random([tokens, sizes.heads], seed: 3), random([Self.offsets.count - 1] + memory, seed: 4),
        ]
    }

    @Test(arguments: sizes, [false, true]) func gatedDeltaRule(sizes: Recurrence, continues: Bool) throws {
        let chunks = SequenceChunks(Self.offsets, device: .cpu)
        try compare(inputs(sizes, memory: [sizes.heads, sizes.keySize, sizes.valueSize])) { x in
            let (rates, decays) = (x[1].sigmoid(), -(x[2].softplus() * 0.2))
            let memory = continues ? x[3] : nil
            let (outputs, last): (Tensor, Tensor?)
            if x[0].dtype == .float32 {
                let result = sizes(
                    x[0], rates: rates, decays: decays, offsets: Self.offsets, memories: [memory].compactMap { $0 },
                    keeping: continues ? .together : .none)
                (outputs, last) = (result.outputs, result.memories.first)
            } else {
                let rule = GatedDeltaRule(x[0], sizes, rates: rates, decays: decays)
                (outputs, last) = rule.scan(chunks, memory: memory, keepsMemory: continues)
            }
            return [outputs] + [last].compactMap { $0 }
        }
    }

    @Test(arguments: sizes, [false, true]) func stateSpace(sizes given: Recurrence, continues: Bool) throws {
        let sizes = Recurrence(
            .stateSpace, keyHeads: given.keyHeads, heads: given.heads, keySize: given.keySize,
            valueSize: given.valueSize)
        let share = sizes.heads / sizes.keyHeads
        let chunks = SequenceChunks(Self.offsets, device: .cpu)
        let memory = [sizes.keyHeads, sizes.keySize, share, sizes.valueSize]
        let others = [random([sizes.heads], seed: 5), random([sizes.heads], seed: 6)]
        try compare(inputs(sizes, memory: memory) + others) { x in
            let (steps, decays, skip) = (x[1].softplus(), -x[4].exp(), x[5])
            let memory = continues ? x[3] : nil
            let (outputs, last): (Tensor, Tensor?)
            if x[0].dtype == .float32 {
                // The same in tensors of some sequences each.
                let parts = memory.map { [$0.narrowed(axis: 0, 0..<2), $0.narrowed(axis: 0, 2..<6)] } ?? []
                let result = sizes(
                    x[0], rates: steps, decays: steps * decays, skip: skip, offsets: Self.offsets, memories: parts,
                    keeping: continues ? .apart : .none)
                (outputs, last) = (result.outputs, continues ? .concatenated(result.memories) : nil)
            } else {
                let parts = x[0].split(axis: 1, [sizes.valueWidth, sizes.keyWidth, sizes.keyWidth])
                func ofGroups(_ x: Tensor) -> Tensor { x.reshaped(-1, sizes.keyHeads, sizes.keySize) }
                let values = parts[0].reshaped(-1, sizes.heads, sizes.valueSize)
                let scan = StateSpaceScan(
                    values: values, writers: ofGroups(parts[1]), readers: ofGroups(parts[2]), steps: steps,
                    decays: decays)
                let result = scan.scan(chunks, memory: memory, keepsMemory: continues)
                (outputs, last) = (result.outputs + values * skip.unsqueezed(1), result.memory)
            }
            return [outputs] + [last].compactMap { $0 }
        }
    }

    /// Softplus far from 0 included, and step sizes at their bounds.
    @Test(arguments: [false, true]) func gates(areSteps: Bool) throws {
        let inputs = [
            random([50, 7], seed: 1) * 9, random([50, 7], seed: 2) * 9, random([7], seed: 3), random([7], seed: 4),
        ]
        let bounds = areSteps ? 0.01...8.0 : 0...Double.infinity
        try compare(inputs, value: 1e-6, gradient: 2e-6) { x in
            if x[0].dtype == .float32 {
                let gates = Recurrence.gates(
                    rates: areSteps ? nil : x[0], decays: x[1], factors: x[2], shifts: x[3], bounds: bounds)
                return [gates.rates, gates.decays]
            }
            let sums = (x[1] + x[3]).softplus()
            guard areSteps else { return [x[0].sigmoid(), -(sums * x[2].exp())] }
            let steps = sums.atLeast(bounds.lowerBound).atMost(bounds.upperBound)
            return [steps, -(steps * x[2].exp())]
        }
    }

    /// The memory that the kernels return is the one from which they continue, token by token or in chunks.
    @Test(arguments: [1, 7, 40]) func memoriesContinue(length: Int) throws {
        let sizes = Recurrence(.gatedDelta, keyHeads: 1, heads: 2, keySize: 16, valueSize: 24)
        let all = [random([90, sizes.width], seed: 1), random([90, 2], seed: 2), random([90, 2], seed: 3)]
        let x = all.map { $0.to(.float32) }
        func part(_ tokens: Range<Int>, _ memories: [Tensor]) -> (outputs: Tensor, memories: [Tensor]) {
            let own = x.map { $0.narrowed(axis: 0, tokens) }
            return sizes(
                own[0], rates: own[1].sigmoid(), decays: -own[2].softplus(), offsets: [0, tokens.count],
                memories: memories, keeping: .together)
        }
        try withTorchErrors {
            withoutGradients {
                let whole = part(0..<90, [])
                var (outputs, memories): ([Tensor], [Tensor]) = ([], [])
                for start in stride(from: 0, to: 90, by: length) {
                    let next = part(start..<min(90, start + length), memories)
                    outputs.append(next.outputs)
                    memories = next.memories
                }
                #expect(relativeDifference(Tensor.concatenated(outputs), whole.outputs) < 1e-5)
                #expect(memories.count == 1 && relativeDifference(memories[0], whole.memories[0]) < 1e-5)
            }
        }
    }

    @Test(arguments: [1, 2, 3, 4, 6], [false, true]) func shortConvolution(width: Int, hasSilu: Bool) throws {
        let (channels, rows, tokens) = (37, Self.offsets.count - 1, Self.offsets.last ?? 0)
        let before = random([rows, width - 1, channels], seed: 4)
        let sequences = SequenceScan(Self.offsets, device: .cpu)
        let inputs = [
            random([tokens, channels], seed: 1), random([channels, 1, width], seed: 2), random([channels], seed: 3),
        ]
        try compare(inputs) { x in
            let convolution = ShortConvolution(channels, width: width, hasBias: true)
            for (key, parameter) in convolution.ownParameters() { parameter.tensor = key == "weight" ? x[1] : x[2] }
            let (output, after) = convolution(
                x[0], sequences, before: before.to(x[0].dtype), keepsInputs: true,
                activation: hasSilu ? .silu : nil)
            return [output] + [after?.detached()].compactMap { $0 }
        }
    }

    @Test(arguments: [(1, 40), (3, 33), (4, 16)], [false, true]) func gatedNorm(
        sizes: (groups: Int, size: Int), hasGateFirst: Bool
    ) throws {
        let (groups, size) = sizes
        let width = groups * size
        for weights in Set([size, width]) {
            let inputs = [
                random([150, width], seed: 1), random([150, width + 5], seed: 2), random([weights], seed: 3),
            ]
            try compare(inputs) { x in
                // A gate is a part of a projection.
                let gate = x[1].narrowed(axis: 1, 2..<2 + width)
                if x[0].dtype == .float32 {
                    return [
                        Functions.gatedNorm(
                            x[0], gate: gate, weight: x[2], groups: groups, epsilon: 1e-5, hasGateFirst: hasGateFirst)
                    ]
                }
                let factor = Activation.silu(gate)
                let parts = (hasGateFirst ? x[0] * factor : x[0]).reshaped(150, groups, size)
                let normed = parts * (parts.squared().mean(axes: [-1], keep: true) + 1e-5).rsqrt()
                let scaled = (normed * x[2].reshaped(-1, size)).reshaped(150, width)
                return [hasGateFirst ? scaled : scaled * factor]
            }
        }
    }

    /// bf16 values are computed in fp32 and rounded once.
    @Test func narrowValuesAreRoundedOnce() throws {
        let (x, gate, weight) = (
            random([9, 48], seed: 1).to(.bfloat16), random([9, 48], seed: 2).to(.bfloat16),
            random([48, 1, 4], seed: 3).to(.bfloat16)
        )
        let (wideX, wideGate, wideWeight) = (x.to(.float32), gate.to(.float32), weight.to(.float32))
        try withTorchErrors {
            withoutGradients {
                func convolved(_ x: Tensor, _ weight: Tensor) -> Tensor {
                    Functions.shortConvolution(
                        x, weight: weight, bias: nil, before: nil, offsets: [0, 2, 9], hasSilu: true)
                }
                let narrow = convolved(x, weight)
                #expect(narrow.isIdentical(to: convolved(wideX, wideWeight).to(.bfloat16)))
                func normed(_ x: Tensor, _ gate: Tensor) -> Tensor {
                    Functions.gatedNorm(
                        x, gate: gate, weight: wideWeight.narrowed(axis: 2, 0..<1).reshaped(48), groups: 1,
                        epsilon: 1e-5, hasGateFirst: false)
                }
                #expect(normed(x, gate).isIdentical(to: normed(wideX, wideGate).to(.bfloat16)))
            }
        }
    }
}
