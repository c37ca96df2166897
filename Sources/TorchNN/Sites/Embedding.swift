import Torch

/// A table of vectors, [entries, size], with an ordered list of adapters over it.
public final class Embedding: Module, AdapterSite {
    /// The table that this one looks up in, where it has none of its own.
    public let table: Embedding?
    private var own: any LinearWeight
    /// The type of the vectors where the table is stored in fewer bits than are computed with.
    public var type = DType.float32
    private var slot = AdapterSlot<any EmbeddingAdapter>()

    /// The vectors, [entries, size].
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

    /// A place of its own for adapters where another module looks up in `table`: those over the table act first.
    public init(over table: Embedding) {
        own = table.weight
        self.table = table
    }

    public override func ownParameters() -> [(key: String, parameter: Parameter)] { weight.parameters }

    /// ids [...] (int64) → [..., size]
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

    /// The table [entries, size] as an output layer that is tied to it sees it.
    public var outputWeight: any LinearWeight { slot.active.reduce(weight) { $1.outputWeight($0) } }

    public func attach(_ adapter: Module, route: Int?) -> Bool { slot.attach(adapter, route: route) }
    public func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    public func detach(_ adapter: Module) { slot.detach(adapter) }
    public func clear(route: Int) { slot.clear(route: route) }
    public var attached: [Module] { slot.modules }
}

/// Something that changes what a table of vectors gives.
public protocol EmbeddingAdapter: Module {
    /// The new vectors [..., size]; `vectors` is what lies beneath made of the same ids [...].
    func callAsFunction(_ vectors: Tensor, ids: Tensor, weight: any LinearWeight) -> Tensor
    /// The table [entries, size] that alone does what `weight` and this adapter do together.
    func merged(into weight: Tensor) throws -> Tensor
    /// The table as a tied output layer is to see it.
    func outputWeight(_ weight: any LinearWeight) -> any LinearWeight
    /// Whether ``merged(into:)`` may be used where an output layer is tied to the table.
    var reachesTiedOutput: Bool { get }
}

extension EmbeddingAdapter {
    public func outputWeight(_ weight: any LinearWeight) -> any LinearWeight { weight }
    public var reachesTiedOutput: Bool { false }
}
