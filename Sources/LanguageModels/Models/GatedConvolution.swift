import Torch
import TorchNN

/// A short convolution between two gates (Liquid AI 2025, LFM2): out(c ⊙ conv(b ⊙ x)), where b, c and x are one projection.
final class GatedConvolution: SelfAttention, RecurrentLayer {
    struct Settings: Sendable {
        let hiddenSize: Int
        /// Width of the convolution.
        let width: Int
        /// Whether the projections and the convolution have biases.
        let hasBias: Bool
    }

    @ModuleInfo(key: "in_proj") var input: Linear
    @ModuleInfo(key: "conv") var convolution: ShortConvolution
    @ModuleInfo(key: "out_proj") var output: Linear
    private let settings: Settings
    private let layer: Int

    init(_ settings: Settings, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        super.init()
        let (size, hasBias) = (settings.hiddenSize, settings.hasBias)
        _input.wrappedValue = Linear(size, 3 * size, bias: hasBias)
        _convolution.wrappedValue = ShortConvolution(size, width: settings.width, hasBias: hasBias)
        _output.wrappedValue = Linear(size, size, bias: hasBias)
    }

    package var stateSize: Int { (settings.width - 1) * settings.hiddenSize }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let size = settings.hiddenSize
        let parts = input(x).split(axis: 1, [size, size, size])
        let convolved = convolution(
            parts[0] * parts[2], context.sequenceScan(), before: context.recurrentState(ofLayer: layer)?.inputs,
            keepsInputs: context.keepsRecurrentStates)
        if let last = convolved.after { context.keep(RecurrentState(inputs: last), ofLayer: layer) }
        return output(context.selected(parts[1]) * context.selected(convolved.output))
    }
}
