import Torch

/// An attention's keys and values, where prefixes are prepended (Li & Liang 2021), or attended to separately behind a gate
/// (Zhang et al. 2023).
public final class KeyValueSite: Module, AdapterSite {
    /// Self-attention or cross-attention.
    public let kind: SublayerKind
    /// The stack to which the attention belongs.
    public let role: StackRole
    /// Number of key-value heads, which may be less than the number of query heads.
    public let heads: Int
    /// Size of one head.
    public let headSize: Int
    /// Logits of attention sinks `[query heads]`, keys without values that the model has; `nil` without sinks.
    package let sinks: Parameter?
    /// Whether prefixes can be attached.
    package let takesPrefixes: Bool
    private var slot = AdapterSlot<any KeyValueAdapter>()

    package init(
        _ kind: SublayerKind, role: StackRole, heads: Int, headSize: Int, sinks: Parameter? = nil,
        takesPrefixes: Bool = true
    ) {
        (self.kind, self.role, self.heads, self.headSize) = (kind, role, heads, headSize)
        (self.sinks, self.takesPrefixes) = (sinks, takesPrefixes)
    }

    package var isEmpty: Bool { slot.isEmpty }

    /// The layer's index in the stack, if it isn't its own: the key of its cache (``layer_replication``).
    package var position: Int?

    /// The prefix of each sequence: keys and values `[tokens, heads, headSize]`.
    package func prefixes(forRows rows: Int) -> [(keys: Tensor, values: Tensor)?] {
        guard !slot.isEmpty else { return Array(repeating: nil, count: rows) }
        let routes = RowRouting.current?.routes(forRows: rows)
        var made: [Int: (keys: Tensor, values: Tensor)?] = [:]
        return (0..<rows).map { row in
            let route = routes?[row] ?? -1
            if let known = made[route] { return known }
            let adapters = routes == nil ? slot.active : slot.routed[route] ?? []
            let parts = adapters.filter { $0.gate == nil }.map { $0.keysAndValues() }
            let prefix: (keys: Tensor, values: Tensor)? =
                parts.count > 1
                ? (Tensor.concatenated(parts.map(\.keys)), Tensor.concatenated(parts.map(\.values))) : parts.first
            made[route] = .some(prefix)
            return prefix
        }
    }

    /// Length of the longest sequence's prefix.
    package func longestPrefix(forRows rows: Int) -> Int {
        slot.isEmpty ? 0 : prefixes(forRows: rows).map { $0?.keys.dim(0) ?? 0 }.max() ?? 0
    }

    /// Prepends the prefixes to packed keys and values `[tokens, heads, headSize]`.
    /// - Returns: keys and values with prefixes, and the new offsets of the sequences.
    package func callAsFunction(_ keys: Tensor, _ values: Tensor, offsets: [Int])
        -> (keys: Tensor, values: Tensor, offsets: [Int])
    {
        guard !slot.isEmpty else { return (keys, values, offsets) }
        let prefixes = prefixes(forRows: offsets.count - 1)
        var keyParts: [Tensor] = []
        var valueParts: [Tensor] = []
        var newOffsets = [0]
        for (row, prefix) in prefixes.enumerated() {
            let range = offsets[row]..<offsets[row + 1]
            if let prefix {
                keyParts.append(prefix.keys)
                valueParts.append(prefix.values)
            }
            keyParts.append(keys.narrowed(axis: 0, range))
            valueParts.append(values.narrowed(axis: 0, range))
            newOffsets.append(newOffsets[row] + (prefix?.keys.dim(0) ?? 0) + range.count)
        }
        return (Tensor.concatenated(keyParts), Tensor.concatenated(valueParts), newOffsets)
    }

    /// Adds what gated adapters attend to: output + g · softmax(scale · q kᵀ) v.
    ///
    /// - Parameters:
    ///   - output: the attention's own output, `[tokens, heads, headSize]`.
    ///   - queries: as the attention uses them, of the same shape.
    ///   - offsets: where each sequence starts in `queries`, and the end.
    package func attended(_ output: Tensor, queries: Tensor, offsets: [Int], scale: Double) -> Tensor {
        guard !slot.isEmpty else { return output }
        func added(_ adapters: [any KeyValueAdapter], to output: Tensor, _ queries: Tensor) -> Tensor {
            adapters.reduce(output) { sum, adapter in
                guard let gate = adapter.gate else { return sum }
                let (keys, values) = adapter.keysAndValues()
                let own = Functions.packedAttention(
                    queries, keys.to(queries.dtype), values.to(queries.dtype), bias: nil,
                    queryOffsets: [0, queries.dim(0)], keyOffsets: [0, keys.dim(0)], causal: false, scale: scale)
                return sum + (own * gate).to(sum.dtype)
            }
        }
        guard let routes = RowRouting.current?.routes(forRows: offsets.count - 1) else {
            return added(slot.active, to: output, queries)
        }
        guard slot.routed.values.contains(where: { $0.contains { $0.gate != nil } }) else { return output }
        return Tensor.concatenated(
            routes.enumerated().map { row, route in
                let range = offsets[row]..<offsets[row + 1]
                return added(
                    slot.routed[route] ?? [], to: output.narrowed(axis: 0, range),
                    queries.narrowed(axis: 0, range))
            })
    }

    package func attach(_ adapter: Module, route: Int?) -> Bool { slot.attach(adapter, route: route) }
    package func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    package func detach(_ adapter: Module) { slot.detach(adapter) }
    package func clear(route: Int) { slot.clear(route: route) }
    package var attached: [Module] { slot.modules }
}

/// An adapter that prepends keys and values to those of an attention.
public protocol KeyValueAdapter: Module {
    /// Keys and values `[tokens, heads, headSize]`.
    func keysAndValues() -> (keys: Tensor, values: Tensor)
    /// If there is one, the keys aren't prepended: attending to them is a softmax of its own, which is multiplied by this
    /// gate `[1]` and added to the attention's output.
    var gate: Tensor? { get }
}

extension KeyValueAdapter {
    /// None: most prefixes are attended to with the keys of the tokens.
    public var gate: Tensor? { nil }
}
