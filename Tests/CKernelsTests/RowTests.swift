import CKernels
import Foundation
import Testing

/// Rows against float64.
@Suite struct RowTests {
    @Test(arguments: [1, 15, 16, 17, 100]) func softmax(count: Int) {
        let scores = samples(count, seed: 1), bias = samples(2 * count, seed: 2)
        for stride in [0, 1, 2] {
            var row = scores
            if stride == 0 {
                ck_softmax_row(&row, nil, 0, 3, Int64(count))
            } else {
                ck_softmax_row(&row, bias, Int64(stride), 3, Int64(count))
            }
            let powers = (0..<count).map {
                exp(3 * Double(scores[$0]) + (stride == 0 ? 0 : Double(bias[$0 * stride])))
            }
            let sum = powers.reduce(0, +)
            #expect(relativeDifference(row, powers.map { $0 / sum }) < 1e-6)
        }
    }

    @Test func softmaxOfMaskedScores() {
        var row: [Float] = [0, -.infinity, 0, -.infinity]
        ck_softmax_row(&row, nil, 0, 1, 4)
        #expect(row == [0.5, 0, 0.5, 0])
    }

    @Test(arguments: [1, 31, 32, 33, 100]) func rmsNorm(size: Int) {
        let x = samples(3 * size, seed: 1), weight = samples(size, seed: 2)
        var y = [Float](repeating: 0, count: x.count)
        ck_rms_norm_rows(x, weight, 1e-5, &y, 3, Int64(size))
        let expected = x.indices.map { index in
            let first = index / size * size
            let squares = x[first..<first + size].reduce(0) { $0 + Double($1) * Double($1) }
            return Double(x[index]) / (squares / Double(size) + 1e-5).squareRoot() * Double(weight[index - first])
        }
        #expect(relativeDifference(y, expected) < 1e-6)
    }

    @Test func gates() {
        let gate = samples(100, seed: 1).map { 8 * $0 }, up = samples(100, seed: 2)
        let activations: [(CKGate, (Double) -> Double)] = [
            (CK_RELU, { max($0, 0) }), (CK_SILU, { $0 / (1 + exp(-$0)) }),
            (CK_GELU_TANH, { $0 / 2 * (1 + tanh((2 / Double.pi).squareRoot() * ($0 + 0.044715 * $0 * $0 * $0))) }),
        ]
        for (kind, activation) in activations {
            var y = [Float](repeating: 0, count: 100)
            ck_gate_rows(kind, gate, up, &y, 100)
            #expect(relativeDifference(y, zip(gate, up).map { activation(Double($0)) * Double($1) }) < 1e-6)
        }
    }

    @Test(arguments: [0, 0.1]) func loss(smoothing: Double) {
        let rows = 3, vocabulary = 70, scores = samples(rows * vocabulary, seed: 1).map { 5 * $0 }
        let targets: [Int64] = [0, 69, 35]
        var gradient = scores
        let loss = ck_loss_rows(&gradient, targets, Int64(rows), Int64(vocabulary), 2, smoothing)
        var expectedLoss = 0.0, expected: [Double] = []
        for row in 0..<rows {
            let logits = scores[row * vocabulary..<(row + 1) * vocabulary].map { 2 * Double($0) }
            let normalizer = log(logits.reduce(0) { $0 + exp($1) }), target = Int(targets[row])
            let mean = logits.reduce(0, +) / Double(vocabulary)
            expectedLoss += (1 - smoothing) * (normalizer - logits[target]) + smoothing * (normalizer - mean)
            for (index, logit) in logits.enumerated() {
                let hot = index == target ? 1 - smoothing : 0
                expected.append(2 * (exp(logit - normalizer) - hot - smoothing / Double(vocabulary)))
            }
        }
        #expect(abs(loss / expectedLoss - 1) < 1e-6)
        #expect(relativeDifference(gradient, expected) < 1e-6)
    }
}
