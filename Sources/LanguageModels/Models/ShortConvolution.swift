import Torch
import TorchNN

/// A causal convolution of each channel along a sequence.
final class ShortConvolution: Module {
    /// `[channels, 1, width]`
    private let weight: Parameter
    /// `[channels]`
    private let bias: Parameter?
    private let width: Int

    init(_ channels: Int, width: Int, hasBias: Bool = false) {
        (weight, self.width) = (Parameter(.empty([channels, 1, width], device: .meta)), width)
        bias = hasBias ? Parameter(.empty([channels], device: .meta)) : nil
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        [("weight", weight)] + (bias.map { [("bias", $0)] } ?? [])
    }

    /// - Parameters:
    ///   - x: `[tokens, channels]` of packed sequences.
    ///   - before: the inputs before them, `[rows, width − 1, channels]`; `nil` for zeros.
    ///   - keepsInputs: whether the inputs before the tokens that follow are returned.
    ///   - activation: of the outputs.
    func callAsFunction(
        _ x: Tensor, _ sequences: SequenceScan, before: Tensor?, keepsInputs: Bool, activation: Activation? = nil
    ) -> (output: Tensor, after: Tensor?) {
        guard Functions.hasRowKernel(x), before?.requiresGrad != true else {
            let (output, after) = composed(x, sequences, before: before, keepsInputs: keepsInputs)
            return (activation?(output) ?? output, after)
        }
        let output = Functions.shortConvolution(
            x, weight: weight.tensor, bias: bias?.tensor, before: before, offsets: sequences.offsets,
            hasSilu: activation == .silu)
        let after =
            keepsInputs
            ? Functions.lastInputs(x, width: width, before: before, offsets: sequences.offsets) : nil
        guard let activation, activation != .silu else { return (output, after) }
        return (activation(output), after)
    }

    /// The convolution by libtorch's operations.
    private func composed(_ x: Tensor, _ sequences: SequenceScan, before: Tensor?, keepsInputs: Bool) -> (
        output: Tensor, after: Tensor?
    ) {
        let (channels, rows, reach) = (x.dim(1), sequences.rows, width - 1)
        let type: DType = x.dtype == .float64 ? .float64 : .float32
        let taps = weight.tensor.to(type).reshaped(channels, width).transposed(0, 1)
        let before = before?.to(x.dtype) ?? .zeros([rows, reach, channels], dtype: x.dtype, device: x.device)
        func shifted(_ x: Tensor) -> Tensor { bias.map { x + $0.tensor.to(type) } ?? x }
        if sequences.areSingle {
            let window = Tensor.concatenated([before, x.unsqueezed(1)], axis: 1)
            let output = (window.to(type) * taps.unsqueezed(0)).sum(axes: [1])
            return (shifted(output).to(x.dtype), keepsInputs ? window.narrowed(axis: 1, 1..<width) : nil)
        }
        // Each sequence after the inputs before it.
        let places = sequences.places(reach: reach)
        let all = Tensor.concatenated([before.reshaped(rows * reach, channels), x]).selecting(places.inputs)
        let count = all.dim(0) - reach
        let wide = all.to(type)
        var sum: Tensor?
        for tap in 0..<width {
            let product = wide.narrowed(axis: 0, tap..<tap + max(0, count)) * taps.narrowed(axis: 0, tap..<tap + 1)
            sum = sum.map { $0 + product } ?? product
        }
        let output = shifted((sum ?? wide).selecting(places.outputs)).to(x.dtype)
        return (output, keepsInputs ? all.selecting(places.last).reshaped(rows, reach, channels) : nil)
    }
}
