import Torch

/// Kind of a sublayer.
public enum SublayerKind: String, Sendable, CaseIterable { case attention, crossAttention, feedForward }

/// A sublayer's output before it joins the residual stream (Houlsby et al. 2019, figure 2).
public final class OutputSite: Module, AdapterSite {
    /// The sublayer whose output it is.
    public let kind: SublayerKind
    /// Size of the hidden states.
    public let size: Int
    /// Whether the model tells which residual stream the output joins, for adapters that read it.
    package let knowsStream: Bool
    private var slot = AdapterSlot<any OutputAdapter>()

    package init(_ kind: SublayerKind, size: Int, knowsStream: Bool = false) {
        (self.kind, self.size, self.knowsStream) = (kind, size, knowsStream)
    }

    /// - Parameters:
    ///   - y: the sublayer's output, `[..., size]`.
    ///   - x: the sublayer's input, `[..., size]`, for parallel adapters.
    ///   - stream: the residual stream that y joins; `nil` unless ``knowsStream``.
    package func callAsFunction(_ y: Tensor, input x: Tensor, stream: ResidualStream? = nil) -> Tensor {
        guard let spans = RowRouting.currentSpans, !slot.routed.isEmpty else {
            return Self.applied(slot.active, y, input: x, stream: stream)
        }
        let parts = spans.map { span -> Tensor in
            Self.applied(
                slot.routed[span.route] ?? [], y.narrowed(axis: 0, span.tokens),
                input: x.narrowed(axis: 0, span.tokens),
                stream: stream?.narrowed(span.tokens))
        }
        return parts.count == 1 ? parts[0] : Tensor.concatenated(parts)
    }

    private static func applied(
        _ adapters: [any OutputAdapter], _ y: Tensor, input: Tensor, stream: ResidualStream?
    ) -> Tensor {
        adapters.reduce(y) { y, adapter in
            if let stream, let reader = adapter as? any StreamAdapter, reader.readsStream {
                return reader(y, stream: stream)
            }
            return adapter(y, input: input)
        }
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

/// An output adapter that may read the residual stream, as those of AdapterHub do.
package protocol StreamAdapter: OutputAdapter {
    /// Whether it does; it then needs a site that knows its stream.
    var readsStream: Bool { get }
    /// The new output `[..., size]` for the sublayer's output `y` and the stream that it joins.
    func callAsFunction(_ y: Tensor, stream: ResidualStream) -> Tensor
}

/// The residual stream that a sublayer's output joins.
package struct ResidualStream {
    /// The stream before the sublayer, `[..., size]`.
    package let value: Tensor
    /// The norm of the sum, in blocks that normalize after their sublayers.
    package let norm: LayerNorm?

    package init(_ value: Tensor, norm: LayerNorm? = nil) { (self.value, self.norm) = (value, norm) }

    /// norm(y + stream): the stream after the sublayer.
    package func joined(by y: Tensor) -> Tensor { norm?(value + y) ?? value + y }

    func narrowed(_ tokens: Range<Int>) -> ResidualStream {
        ResidualStream(value.narrowed(axis: 0, tokens), norm: norm)
    }
}
