import Torch

/// Kind of a sublayer.
public enum SublayerKind: String, Sendable, CaseIterable { case attention, crossAttention, feedForward }

/// A sublayer's output before it joins the residual stream (Houlsby et al. 2019, figure 2).
public final class OutputSite: Module, AdapterSite {
    /// The sublayer whose output it is.
    public let kind: SublayerKind
    /// Size of the hidden states.
    public let size: Int
    private var slot = AdapterSlot<any OutputAdapter>()

    package init(_ kind: SublayerKind, size: Int) { (self.kind, self.size) = (kind, size) }

    /// - Parameters:
    ///   - y: the sublayer's output, `[..., size]`.
    ///   - x: the sublayer's input, `[..., size]`, for parallel adapters.
    package func callAsFunction(_ y: Tensor, input x: Tensor) -> Tensor {
        guard let spans = RowRouting.currentSpans, !slot.routed.isEmpty else {
            return slot.active.reduce(y) { $1($0, input: x) }
        }
        let parts = spans.map { span -> Tensor in
            let part = y.narrowed(axis: 0, span.tokens)
            let input = x.narrowed(axis: 0, span.tokens)
            return (slot.routed[span.route] ?? []).reduce(part) { $1($0, input: input) }
        }
        return parts.count == 1 ? parts[0] : Tensor.concatenated(parts)
    }

    package func attach(_ adapter: Module, route: Int?) -> Bool { slot.attach(adapter, route: route) }
    package func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    package func detach(_ adapter: Module) { slot.detach(adapter) }
    package func clear(route: Int) { slot.clear(route: route) }
    package var attached: [Module] { slot.modules }
}

/// A bottleneck network at a sublayer's output.
public protocol OutputAdapter: Module {
    /// The new output `[..., size]` for the sublayer's output `y` and its input.
    func callAsFunction(_ y: Tensor, input: Tensor) -> Tensor
}
