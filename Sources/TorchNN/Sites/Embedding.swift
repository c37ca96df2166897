import Torch

/// An embedding, `[entries, size]`, with an ordered list of adapters.
public final class Embedding: Module, AdapterSite {
    /// The embedding that this one views, if it has no weight of its own.
    public let table: Embedding?
    private var own: any LinearWeight
    /// Dtype of the vectors if the weight is quantized.
    public var type = DType.float32
    private var slot = AdapterSlot<any EmbeddingAdapter>()

    /// The weight, `[entries, size]`.
    public var weight: any LinearWeight {
        get { table?.weight ?? own }
        set { if let table { table.weight = newValue } else { own = newValue } }
    }
    public var entries: Int { weight.outputs }
    public var size: Int { weight.inputs }
    public var adapters: [any EmbeddingAdapter] { slot.active }

    public init(_ entries: Int, _ size: Int, device: Device = .meta) {
        own = DenseWeight(.empty([entries, size], device: device))
        table = nil
    }

    /// A view of `table` with its own adapters, applied after those of `table`.
    public init(over table: Embedding) {
        own = table.weight
        self.table = table
    }

    public override func ownParameters() -> [(key: String, parameter: Parameter)] { weight.parameters }

    /// ids `[...]` (int64) -> `[..., size]`.
    public func callAsFunction(_ ids: Tensor) -> Tensor {
        let vectors = table?(ids) ?? own.rows(ids, as: type)
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
        adapters.reduce(vectors) { $1($0, ids: ids, weight: weight) }
    }

    /// The weight `[entries, size]` as a tied output layer uses it.
    public var outputWeight: any LinearWeight { slot.active.reduce(weight) { $1.outputWeight($0) } }

    public func attach(_ adapter: Module, route: Int?) -> Bool { slot.attach(adapter, route: route) }
    public func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    public func detach(_ adapter: Module) { slot.detach(adapter) }
    public func clear(route: Int) { slot.clear(route: route) }
    public var attached: [Module] { slot.modules }
}

/// An adapter that changes an embedding's output.
public protocol EmbeddingAdapter: Module {
    /// The new vectors `[..., size]`, from those below for the same ids `[...]`.
    func callAsFunction(_ vectors: Tensor, ids: Tensor, weight: any LinearWeight) -> Tensor
    /// The weight `[entries, size]` that equals `weight` with this adapter.
    func merged(into weight: Tensor) throws -> Tensor
    /// The weight as a tied output layer uses it.
    func outputWeight(_ weight: any LinearWeight) -> any LinearWeight
    /// Whether ``merged(into:)`` is valid if an output layer is tied to the embedding.
    var reachesTiedOutput: Bool { get }
}

extension EmbeddingAdapter {
    public func outputWeight(_ weight: any LinearWeight) -> any LinearWeight { weight }
    public var reachesTiedOutput: Bool { false }
}
