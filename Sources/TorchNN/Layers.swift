import Torch

/// Root-mean-square normalization with a learned scale (Zhang & Sennrich 2019), as T5's layer norm. Gemma stores the
/// scale − 1.
package final class RMSNorm: Module {
    @ParameterInfo package var weight: Tensor
    package let epsilon: Double
    /// Added to the stored scale: 1 for Gemma.
    package let offset: Double

    package init(_ size: Int, epsilon: Double, offset: Double = 0, device: Device = .meta) {
        _weight = ParameterInfo(wrappedValue: .empty([size], device: device))
        (self.epsilon, self.offset) = (epsilon, offset)
    }

    package func callAsFunction(_ x: Tensor) -> Tensor {
        Functions.rmsNorm(x, weight: weight, epsilon: epsilon, offset: offset)
    }
}

/// Layer normalization (Ba et al. 2016), by default with learned scale and shift.
package final class LayerNorm: Module {
    // Optional wrappers, which are declared as `@ParameterInfo` would declare them.
    private let _weight: ParameterInfo?
    private let _bias: ParameterInfo?
    package let epsilon: Double

    package init(
        _ size: Int, epsilon: Double, hasScale: Bool = true, hasBias: Bool = true, device: Device = .meta
    ) {
        func parameter(_ exists: Bool) -> ParameterInfo? {
            exists ? ParameterInfo(wrappedValue: .empty([size], device: device)) : nil
        }
        (_weight, _bias, self.epsilon) = (parameter(hasScale), parameter(hasBias), epsilon)
    }

    /// The scale `[size]`; `nil` without one, which can't be set.
    package var weight: Tensor? {
        get { _weight?.wrappedValue }
        set { if let newValue { _weight?.wrappedValue = newValue } }
    }

    /// The shift `[size]`; `nil` without one, which can't be set.
    package var bias: Tensor? {
        get { _bias?.wrappedValue }
        set { if let newValue { _bias?.wrappedValue = newValue } }
    }

    package func callAsFunction(_ x: Tensor) -> Tensor {
        Functions.layerNorm(x, weight: weight, bias: bias, epsilon: epsilon)
    }
}
