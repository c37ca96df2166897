import PEFTSupport
import Torch
import TorchNN

/// An adapter that adds a matrix to the weight: y = x Wᵀ + b + drop(x) ΔWᵀ. ΔW is formed once per forward pass.
protocol WeightDelta: LinearAdapter, AdapterModule {
    /// Dropout probability of the inputs of ΔW.
    var dropoutRate: Double { get }
    /// ΔW `[out, in]`; `cast` is applied to each parameter that it is made of.
    func delta(_ cast: (Tensor) -> Tensor) -> Tensor
}

extension WeightDelta {
    var dropoutRate: Double { 0 }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        base(x) + Functions.linear(dropout(x, dropoutRate), delta { $0 })
    }

    func merged(into weight: Tensor) throws -> Tensor {
        (weight.to(.float64) + delta { $0.detached().to(.float64) }).to(weight.dtype)
    }
}

/// An adapter whose ΔW is a product of two factors that are computed from its parameters: y = x Wᵀ + b + s drop(x) Aᵀ
/// Bᵀ.
protocol LowRankDelta: LinearAdapter, AdapterModule {
    /// Dropout probability of the inputs of ΔW.
    var dropoutRate: Double { get }
    var scale: Double { get }
    /// A `[rank, in]` and B `[out, rank]`; `cast` is applied to each parameter that they are made of.
    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor)
}

extension LowRankDelta {
    var scale: Double { 1 }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        var (a, b) = factors { $0 }
        // Under autocast a factor that is a product is in 16 bits.
        if a.dtype != b.dtype { (a, b) = (a.to(.float32), b.to(.float32)) }
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        return Functions.loraBranch(base(x), x: x, a: a, b: b, scale: scale, dropout: probability, seed: seed)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let (a, b) = factors { $0.detached().to(.float64) }
        return (weight.to(.float64) + b.matmul(a) * scale).to(weight.dtype)
    }
}

extension AttachmentContext {
    /// A matrix of zeros in the adapter's dtype.
    func zeros(_ shape: [Int]) -> Tensor { .zeros(shape, dtype: dtype, device: device) }

    /// A matrix of ones in the adapter's dtype.
    func ones(_ shape: [Int]) -> Tensor { .ones(shape, dtype: dtype, device: device) }

    /// A tensor that is uniform in ±`bound`; by default ±1/√(size of the last axis), Kaiming's with a = √5.
    func uniform(_ shape: [Int], bound: Double? = nil) -> Tensor {
        let tensor = Tensor.empty(shape, dtype: dtype, device: device)
        let bound = bound ?? 1 / Double(max(1, shape.last ?? 1)).squareRoot()
        if device != .meta { tensor.fillUniform(-bound, bound, from: &random) }
        return tensor
    }

    /// A tensor of normally distributed values.
    func normal(_ shape: [Int], deviation: Double = 1) -> Tensor {
        let tensor = Tensor.empty(shape, dtype: dtype, device: device)
        if device != .meta { tensor.fillNormal(deviation: deviation, from: &random) }
        return tensor
    }
}

extension Tensor {
    /// The tensor as trained, or in another type without its gradient.
    func cast(_ type: DType?) -> Tensor { type.map { detached().to($0) } ?? self }

    /// Checks indices that a file contains.
    /// - Throws: ``PEFTError`` if one is negative or not below `limit`.
    func checkIndices(below limit: Int, name: String) throws {
        let values: [Int] = to(.int64).array()
        guard let bad = values.first(where: { !(0..<limit).contains($0) }) else { return }
        throw PEFTError(
            "'\(name)' contains the index \(bad), but there are \(limit) values",
            remedy: "use the base model that the adapter was trained on, or download the file again")
    }
}
