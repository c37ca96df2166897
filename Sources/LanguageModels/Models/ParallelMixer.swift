import Torch
import TorchNN

/// An attention and a Mamba-2 layer beside it on the same input, whose outputs are added (Zuo et al. 2025, Falcon-H1,
/// section 2).
final class ParallelMixer: SelfAttention {
    struct Settings: Sendable {
        let stateSpace: Mamba2.Settings
        /// Factors of the attention's input and output, and of the other layer's output.
        let attentionInputScale, attentionOutputScale, stateOutputScale: Double
    }

    @ModuleInfo(key: "mamba") var stateSpace: Mamba2
    @ModuleInfo(key: "self_attn") var attention: GroupedQueryAttention
    private let settings: Settings

    init(_ settings: Settings, layer: Int, attention: GroupedQueryAttention) {
        self.settings = settings
        _stateSpace.wrappedValue = Mamba2(settings.stateSpace, layer: layer)
        _attention.wrappedValue = attention
    }

    override var prefixSite: KeyValueSite? { attention.prefixSite }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        func scaled(_ x: Tensor, _ factor: Double) -> Tensor { factor == 1 ? x : x * factor }
        let remembered = scaled(stateSpace(x, context), settings.stateOutputScale)
        let attended = attention(scaled(x, settings.attentionInputScale), context)
        return remembered + scaled(attended, settings.attentionOutputScale)
    }
}
