import Foundation
import Torch

/// Attention with linear biases (ALiBi; Press et al. 2022, section 3): the score of the key at position j grows by m · j
/// in a head with the slope m, the same for all queries, as a softmax doesn't change with a constant of its query.
struct LinearBiases: Sendable {
    /// The slope of each head.
    let slopes: [Float]
    /// Factor of the biases.
    let scale: Double
    /// Whether slopes and biases are rounded to bfloat16 before the factor (Falcon).
    let areRounded: Bool

    /// The slopes of a power of two of heads n are 2^(−8i/n); further heads have every other slope of 2n heads.
    init(heads: Int, scale: Double = 1, areRounded: Bool = false) {
        let power = 1 << (Int.bitWidth - 1 - max(1, heads).leadingZeroBitCount)
        func slope(_ exponent: Int, of count: Int) -> Float {
            let base = Float(Foundation.pow(2, -8 / Double(count)))
            return Float(Foundation.pow(Double(base), Double(exponent)))
        }
        slopes =
            (1...power).map { slope($0, of: power) } + (0..<(heads - power)).map { slope(2 * $0 + 1, of: 2 * power) }
        (self.scale, self.areRounded) = (scale, areRounded)
    }

    /// The biases of keys at the first positions: `[heads, positions]`.
    ///
    /// - Parameter hasVirtualTokens: whether the sequence has a prompt or a prefix. Hugging Face PEFT's attention mask is
    ///   then fp32, from which transformers counts positions, so that only the slopes are rounded.
    func callAsFunction(positions: Int, hasVirtualTokens: Bool = false, device: Device) -> Tensor {
        let type = areRounded && !hasVirtualTokens ? DType.bfloat16 : .float32
        let growth = Tensor(slopes, shape: [slopes.count, 1], device: device).to(areRounded ? .bfloat16 : .float32)
        let places = Tensor((0..<positions).map(Float.init), shape: [1, positions], device: device).to(type)
        let biases = (growth.to(type) * places).to(.float32)
        return scale == 1 ? biases : biases * scale
    }
}
