import Torch
import TorchNN

/// Consecutive draws from PyTorch's CPU generator for one seed, so that a file that has only the seed gives the same
/// values as in Hugging Face PEFT.
struct RandomStream {
    private let seed: UInt64
    private var drawn = 0

    init(seed: Int) { self.seed = UInt64(max(0, seed)) }

    /// The next values, uniform in [low, high).
    mutating func uniform(_ shape: [Int], _ low: Double, _ high: Double, dtype: DType = .float32) -> Tensor {
        let count = shape.reduce(1, *)
        // The generator has no other way to skip values.
        let all = Tensor.empty([drawn + count], dtype: dtype)
        all.fillUniform(low, high, seed: seed)
        let values = all.narrowed(axis: 0, drawn..<(drawn + count)).reshaped(shape).contiguous()
        drawn += count
        return values
    }
}

/// Frozen random A `[rows, largest in]` and B `[largest out, rank]` that all projections share; a projection uses a leading
/// slice (VeRA, PVeRA).
final class SharedProjection {
    let a: Parameter
    let b: Parameter

    /// Kaiming uniform, ±√(6 / fan in), from one random stream: the same values as Hugging Face PEFT's for the same
    /// key.
    init(key: Int, rows: Int, rank: Int, inputs: Int, outputs: Int, _ context: AttachmentContext) {
        guard context.device != .meta else {
            a = Parameter(.empty([rows, inputs], device: .meta))
            b = Parameter(.empty([outputs, rank], device: .meta))
            return
        }
        var stream = RandomStream(seed: key)
        func drawn(_ shape: [Int]) -> Parameter {
            let bound = (6 / Double(shape[1])).squareRoot()
            return Parameter(stream.uniform(shape, -bound, bound).to(context.dtype).to(context.device))
        }
        a = drawn([rows, inputs])
        b = drawn([outputs, rank])
    }
}
