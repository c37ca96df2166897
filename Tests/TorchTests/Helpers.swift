import Foundation
import PEFTSupport
import Testing
import Torch
import TorchTestSupport

/// Normal numbers that depend on the seed alone.
func random(_ shape: Int..., seed: UInt64, dtype: DType = .float64) -> Tensor {
    var source = SeededRandom(seed: seed)
    let tensor = Tensor.empty(shape, dtype: dtype)
    tensor.fillNormal(from: &source)
    return tensor
}

/// The gradients of Σ function(inputs) ⊙ c for a fixed random c.
func gradients(_ inputs: [Tensor], _ function: ([Tensor]) -> Tensor) throws -> [Tensor] {
    let leaves = inputs.map { $0.detached().clone() }
    for leaf in leaves { leaf.requiresGrad = true }
    return try withTorchErrors {
        let output = function(leaves)
        (output * weights(like: output)).sum().backward()
        return leaves.map { $0.grad ?? .zeros(like: $0) }
    }
}

private func weights(like output: Tensor) -> Tensor {
    var source = SeededRandom(seed: 99)
    // The same numbers whatever the type.
    let tensor = Tensor.empty(output.shape, dtype: .float64)
    tensor.fillNormal(from: &source)
    return tensor.to(output.dtype)
}

/// Checks the gradients of a function of float64 tensors, element by element, against central differences.
func expectGradients(
    _ inputs: [Tensor], tolerance: Double = 1e-7, sourceLocation: SourceLocation = #_sourceLocation,
    _ function: ([Tensor]) -> Tensor
) throws {
    let exact = try gradients(inputs, function)
    let points = inputs.map { $0.detached().clone() }
    func value() throws -> Double {
        try withTorchErrors {
            withoutGradients {
                let output = function(points)
                return (output * weights(like: output)).sum().item()
            }
        }
    }
    for (number, point) in points.enumerated() {
        let flat = point.reshaped(-1)
        let gradient: [Double] = exact[number].array()
        let scale = max(gradient.map(abs).max() ?? 0, 1)
        for index in 0..<flat.count {
            let element = flat.narrowed(axis: 0, index..<(index + 1))
            let center = element.item()
            let step = 1e-5
            element.fill(center + step)
            let above = try value()
            element.fill(center - step)
            let below = try value()
            element.fill(center)
            let slope = (above - below) / (2 * step)
            #expect(
                abs(slope - gradient[index]) < tolerance * scale, "input \(number), element \(index)",
                sourceLocation: sourceLocation)
        }
    }
}

/// Checks that two functions have the same values and gradients.
func expectSame(
    _ inputs: [Tensor], tolerance: Double = 1e-12, sourceLocation: SourceLocation = #_sourceLocation,
    _ function: ([Tensor]) -> Tensor, _ reference: ([Tensor]) -> Tensor
) throws {
    let (a, b) = try withTorchErrors { withoutGradients { (function(inputs), reference(inputs)) } }
    #expect(relativeDifference(a, b) < tolerance, "value", sourceLocation: sourceLocation)
    let pairs = zip(try gradients(inputs, function), try gradients(inputs, reference))
    for (number, (a, b)) in pairs.enumerated() {
        #expect(relativeDifference(a, b) < tolerance, "gradient of input \(number)", sourceLocation: sourceLocation)
    }
}

/// One to eight changes: bits, bytes, numbers at their limits, pieces lost, doubled or moved.
func mutated(_ original: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
    var bytes = original
    for _ in 0...random.below(8) where !bytes.isEmpty {
        let place = random.below(bytes.count)
        let count = min(1 + random.below(16), bytes.count - place)
        switch random.below(8) {
        case 0: bytes[place] ^= 1 << UInt8(random.below(8))
        case 1: bytes[place] = UInt8(truncatingIfNeeded: random.next())
        case 2: for index in place..<(place + count) { bytes[index] = [0, 0x7F, 0x80, 0xFF][random.below(4)] }
        case 3: bytes.removeSubrange(place..<(place + count))
        case 4: bytes.insert(contentsOf: bytes[place..<(place + count)], at: random.below(bytes.count))
        case 5:
            let other = random.below(bytes.count - count + 1)
            let piece = Array(bytes[other..<(other + count)])
            bytes.replaceSubrange(place..<(place + count), with: piece)
        case 6: bytes[place] = bytes[place] &+ 1
        default: if random.below(8) == 0 { bytes.removeLast(random.below(bytes.count)) }
        }
    }
    return bytes
}
