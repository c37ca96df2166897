import Torch

/// An embedding, `[entries, size]`, with an ordered list of adapters.
public final class Embedding: Module, AdapterSite {
    /// The embedding that this one views, if it has no weight of its own.
    package let table: Embedding?
    private var own: any LinearWeight
    /// Dtype of the vectors if the weight is quantized.
    package var type = DType.float32
    private var slot = AdapterSlot<any EmbeddingAdapter>()

    /// The weight, `[entries, size]`.
    package var weight: any LinearWeight {
        get { table?.weight ?? own }
        set { if let table { table.weight = newValue } else { own = newValue } }
    }
    /// Number of vectors.
    public var entries: Int { weight.outputs }
    /// Size of a vector.
    public var size: Int { weight.inputs }
    package var adapters: [any EmbeddingAdapter] { slot.active }

    package init(_ entries: Int, _ size: Int, device: Device = .meta) {
        own = DenseWeight(.empty([entries, size], device: device))
        table = nil
    }

    /// A view of `table` with its own adapters, applied after those of `table`.
    package init(over table: Embedding) {
        own = table.weight
        self.table = table
    }

    public override func ownParameters() -> [(key: String, parameter: Parameter)] { weight.parameters }

    /// ids `[...]` (int64) -> `[..., size]`.
    public func callAsFunction(_ ids: Tensor) -> Tensor {
        let vectors = table?(ids) ?? gathered { own.rows(ids, as: type) }
        guard let spans = RowRouting.currentSpans, !slot.routed.isEmpty else {
            return adapted(vectors, ids, slot.active)
        }
        let parts = spans.map { span in
            adapted(
                vectors.narrowed(axis: 0, span.tokens), ids.narrowed(axis: 0, span.tokens),
                slot.routed[span.route] ?? [])
        }
        return parts.count == 1 ? parts[0] : Tensor.concatenated(parts)
    }

    private func adapted(_ vectors: Tensor, _ ids: Tensor, _ adapters: [any EmbeddingAdapter]) -> Tensor {
        adapters.reduce(vectors) { $1($0, ids: ids) }
    }

    /// The weight `[entries, size]` as a tied output layer uses it.
    package var outputWeight: any LinearWeight {
        slot.active.reduce(weight) { ($1 as? any TiedEmbeddingAdapter)?.outputWeight($0) ?? $0 }
    }

    package func attach(_ adapter: Module, route: Int?) -> Bool { slot.attach(adapter, route: route) }
    package func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    package func detach(_ adapter: Module) { slot.detach(adapter) }
    package func clear(route: Int) { slot.clear(route: route) }
    package var attached: [Module] { slot.modules }
}

/// An adapter that changes an embedding's output.
public protocol EmbeddingAdapter: Module {
    /// The new vectors `[..., size]`, from those below for the same ids `[...]`.
    func callAsFunction(_ vectors: Tensor, ids: Tensor) -> Tensor
    /// The weight `[entries, size]` that equals `weight` with this adapter.
    func merged(into weight: Tensor) throws -> Tensor
    /// Whether ``merged(into:)`` is valid if an output layer is tied to the embedding; `false` by default.
    var reachesTiedOutput: Bool { get }
}

extension EmbeddingAdapter {
    /// `false`: most adapters change the vectors that are looked up, and not the output layer.
    public var reachesTiedOutput: Bool { false }
}

/// An adapter whose delta also belongs to an output layer that is tied to the embedding.
package protocol TiedEmbeddingAdapter: EmbeddingAdapter {
    /// The weight `[entries, size]` as a tied output layer uses it.
    func outputWeight(_ weight: any LinearWeight) -> any LinearWeight
}
