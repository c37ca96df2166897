import CKernels
import Foundation
import Testing

/// Recurrences against plain loops in float64, and their gradients against central differences of those.
@Suite struct RecurrenceTests {
    /// Of each sequence: few tokens, none, and two chunks.
    private static let offsets: [Int64] = [0, 3, 3, 43]

    struct Sizes: Sendable {
        let isDelta: Bool
        let keyHeads, heads, keySize, valueSize: Int

        var width: Int { 2 * keyHeads * keySize + heads * valueSize }
        var memory: Int { heads * keySize * valueSize }
        var raw: CKRecurrence {
            CKRecurrence(
                is_delta: isDelta, rows: Int64(RecurrenceTests.offsets.count - 1), key_heads: Int64(keyHeads),
                heads: Int64(heads),
                key_size: Int64(keySize), value_size: Int64(valueSize))
        }

        /// The outputs of all heads token by token.
        func outputs(_ x: [Double], _ rates: [Double], _ decays: [Double], _ memories: [Double]) -> [Double] {
            let (tokens, share) = (Int(RecurrenceTests.offsets[RecurrenceTests.offsets.count - 1]), heads / keyHeads)
            var outputs = [Double](repeating: 0, count: tokens * heads * valueSize)
            func unit(_ x: ArraySlice<Double>) -> [Double] {
                let norm = isDelta ? (x.reduce(0) { $0 + $1 * $1 } + 1e-6).squareRoot() : 1
                return x.map { $0 / norm }
            }
            for row in 0..<RecurrenceTests.offsets.count - 1 {
                for head in 0..<heads {
                    func place(_ key: Int, _ value: Int) -> Int {
                        isDelta
                            ? (head * keySize + key) * valueSize + value
                            : ((head / share * keySize + key) * share + head % share) * valueSize + value
                    }
                    var memory = (0..<keySize * valueSize).map {
                        memories[row * self.memory + place($0 / valueSize, $0 % valueSize)]
                    }
                    for token in Int(RecurrenceTests.offsets[row])..<Int(RecurrenceTests.offsets[row + 1]) {
                        let first = token * width + head / share * keySize
                        let query = unit(x[first..<first + keySize])
                        let key = unit(x[first + keyHeads * keySize..<first + (keyHeads + 1) * keySize])
                        let fade = exp(decays[token * heads + head]), rate = rates[token * heads + head]
                        let values = token * width + 2 * keyHeads * keySize + head * valueSize
                        for index in memory.indices { memory[index] *= fade }
                        for value in 0..<valueSize {
                            let read = (0..<keySize).reduce(0) { $0 + key[$1] * memory[$1 * valueSize + value] }
                            let change = rate * (x[values + value] - (isDelta ? read : 0))
                            var output = 0.0
                            for index in 0..<keySize {
                                memory[index * valueSize + value] += key[index] * change
                                output += query[index] * memory[index * valueSize + value]
                            }
                            outputs[(token * heads + head) * valueSize + value] =
                                isDelta ? output / Double(keySize).squareRoot() : output
                        }
                    }
                }
            }
            return outputs
        }
    }

    @Test(arguments: [
        Sizes(isDelta: true, keyHeads: 1, heads: 2, keySize: 3, valueSize: 5),
        Sizes(isDelta: true, keyHeads: 2, heads: 2, keySize: 17, valueSize: 4),
        Sizes(isDelta: false, keyHeads: 1, heads: 10, keySize: 2, valueSize: 3),
    ]) func equalsPlainLoops(sizes: Sizes) {
        let tokens = Int(Self.offsets[3]), rows = 3
        let x = samples(tokens * sizes.width, seed: 1), memories = samples(rows * sizes.memory, seed: 4)
        let rates = samples(tokens * sizes.heads, seed: 2).map { ($0 + 1.1) / 2.2 }
        let decays = samples(tokens * sizes.heads, seed: 3).map { -($0 + 1) / 4 }
        var outputs = [Float](repeating: .nan, count: tokens * sizes.heads * sizes.valueSize)
        var (changes, last) = (outputs, [Float](repeating: .nan, count: memories.count))
        ck_recurrence(sizes.raw, Self.offsets, x, rates, decays, memories, &outputs, &changes, &last)
        let inputs = [x, rates, decays, memories].map { $0.map(Double.init) }
        #expect(relativeDifference(outputs, sizes.outputs(inputs[0], inputs[1], inputs[2], inputs[3])) < 2e-6)
        #expect(!last.contains { !$0.isFinite })
        #expect(last[sizes.memory..<2 * sizes.memory] == memories[sizes.memory..<2 * sizes.memory])

        let weights = samples(outputs.count, seed: 5)
        var gradients = [x, rates, decays, memories].map { [Float](repeating: .nan, count: $0.count) }
        var (toX, toRates, toDecays, toMemories) = (gradients[0], gradients[1], gradients[2], gradients[3])
        ck_recurrence_backward(
            sizes.raw, Self.offsets, x, rates, decays, memories, changes, weights, &toX, &toRates, &toDecays,
            &toMemories)
        gradients = [toX, toRates, toDecays, toMemories]
        for (input, gradient) in gradients.enumerated() {
            #expect(!gradient.contains { !$0.isFinite })
            let scale = Double(gradient.map(abs).max() ?? 0)
            for index in stride(from: 1, to: gradient.count, by: max(1, gradient.count / 4)) {
                func loss(_ step: Double) -> Double {
                    var moved = inputs
                    moved[input][index] += step
                    let outputs = sizes.outputs(moved[0], moved[1], moved[2], moved[3])
                    return zip(outputs, weights).reduce(0) { $0 + $1.0 * Double($1.1) }
                }
                let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
                #expect(abs(slope - Double(gradient[index])) < 1e-5 * scale, "input \(input), element \(index)")
            }
        }
    }

    @Test(arguments: [1, 3, 4, 5]) func shortConvolution(width: Int) {
        let tokens = Int(Self.offsets[3]), channels = 19
        let x = samples(tokens * channels, seed: 1), weight = samples(channels * width, seed: 2)
        func expected(_ x: [Double], _ weight: [Double]) -> [Double] {
            (0..<x.count).map { index in
                let (token, channel) = (index / channels, index % channels)
                let start = Int(Self.offsets.last { $0 <= token } ?? 0)
                let sum = (0..<width).reduce(0.0) { sum, tap in
                    let source = token - width + 1 + tap
                    return source < start ? sum : sum + weight[channel * width + tap] * x[source * channels + channel]
                }
                return sum / (1 + exp(-sum))
            }
        }
        var y = [Float](repeating: .nan, count: x.count)
        ck_short_convolution(Self.offsets, 3, Int64(channels), Int64(width), x, weight, &y)
        let inputs = [x, weight].map { $0.map(Double.init) }
        #expect(relativeDifference(y, expected(inputs[0], inputs[1])) < 2e-6)
        let weights = samples(y.count, seed: 3)
        var (toX, toWeight) = (y, weight)
        ck_short_convolution_backward(
            Self.offsets, 3, Int64(channels), Int64(width), x, weight, weights, &toX, &toWeight)
        for (input, gradient) in [toX, toWeight].enumerated() {
            let scale = Double(gradient.map(abs).max() ?? 0)
            for index in stride(from: 1, to: gradient.count, by: max(1, gradient.count / 4)) {
                func loss(_ step: Double) -> Double {
                    var moved = inputs
                    moved[input][index] += step
                    return zip(expected(moved[0], moved[1]), weights).reduce(0) { $0 + $1.0 * Double($1.1) }
                }
                let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
                #expect(abs(slope - Double(gradient[index])) < 1e-5 * scale, "input \(input), element \(index)")
            }
        }
    }
}
