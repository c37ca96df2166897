import Torch

/// Root-mean-square normalization with a learned scale (Zhang & Sennrich 2019), as T5's layer norm. Gemma stores the
/// scale − 1.
public final class RMSNorm: Module {
    @ParameterInfo public var weight: Tensor
    public let epsilon: Double
    /// Added to the stored scale: 1 for Gemma.
    public let offset: Double

    public init(_ size: Int, epsilon: Double, offset: Double = 0, device: Device = .meta) {
        _weight = ParameterInfo(wrappedValue: .empty([size], device: device))
        (self.epsilon, self.offset) = (epsilon, offset)
    }

    public func callAsFunction(_ x: Tensor) -> Tensor {
        Functions.rmsNorm(x, weight: weight, epsilon: epsilon, offset: offset)
    }
}

/// Layer normalization with a learned scale and mostly a learned shift (Ba et al. 2016).
public final class LayerNorm: Module {
    @ParameterInfo public var weight: Tensor
    @ParameterInfo public var bias: Tensor
    public let epsilon: Double

    /// Whether it has a shift.
    public let hasBias: Bool

    public init(_ size: Int, epsilon: Double, hasBias: Bool = true, device: Device = .meta) {
        _weight = ParameterInfo(wrappedValue: .empty([size], device: device))
        _bias = ParameterInfo(wrappedValue: .empty([hasBias ? size : 0], device: device))
        (self.epsilon, self.hasBias) = (epsilon, hasBias)
    }

    public override func ownParameters() -> [(key: String, parameter: Parameter)] {
        super.ownParameters().filter { hasBias || $0.key != "bias" }
    }

    public func callAsFunction(_ x: Tensor) -> Tensor {
        Functions.layerNorm(x, weight: weight, bias: hasBias ? bias : nil, epsilon: epsilon)
    }
}
