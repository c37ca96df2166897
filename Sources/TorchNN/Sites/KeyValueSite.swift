import Torch

/// An attention's keys and values, where prefixes are prepended (Li & Liang 2021).
public final class KeyValueSite: Module, AdapterSite {
    public let kind: SublayerKind
    public let role: StackRole
    /// Number of key-value heads, which may be less than the number of query heads.
    public let heads: Int
    /// Size of one head.
    public let headSize: Int
    private var slot = AdapterSlot<any KeyValueAdapter>()

    public init(_ kind: SublayerKind, role: StackRole, heads: Int, headSize: Int) {
        (self.kind, self.role, self.heads, self.headSize) = (kind, role, heads, headSize)
    }

    public var isEmpty: Bool { slot.isEmpty }

    /// The prefix of each sequence: keys and values `[tokens, heads, headSize]`.
    public func prefixes(forRows rows: Int) -> [(keys: Tensor, values: Tensor)?] {
        guard !slot.isEmpty else { return Array(repeating: nil, count: rows) }
        let routes = RowRouting.current?.routes(forRows: rows)
        var made: [Int: (keys: Tensor, values: Tensor)?] = [:]
        return (0..<rows).map { row in
            let route = routes?[row] ?? -1
            if let known = made[route] { return known }
            let adapters = routes == nil ? slot.active : slot.routed[route] ?? []
            let parts = adapters.map { $0.keysAndValues() }
            let prefix: (keys: Tensor, values: Tensor)? =
                parts.count > 1
                ? (Tensor.concatenated(parts.map(\.keys)), Tensor.concatenated(parts.map(\.values))) : parts.first
            made[route] = .some(prefix)
            return prefix
        }
    }

    /// Length of the longest sequence's prefix.
    public func longestPrefix(forRows rows: Int) -> Int {
        slot.isEmpty ? 0 : prefixes(forRows: rows).map { $0?.keys.dim(0) ?? 0 }.max() ?? 0
    }

    /// Prepends the prefixes to packed keys and values `[tokens, heads, headSize]`.
    /// - Returns: keys and values with prefixes, and the new offsets of the sequences.
    public func callAsFunction(_ keys: Tensor, _ values: Tensor, offsets: [Int])
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

    public func attach(_ adapter: Module, route: Int?) -> Bool { slot.attach(adapter, route: route) }
    public func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    public func detach(_ adapter: Module) { slot.detach(adapter) }
    public func clear(route: Int) { slot.clear(route: route) }
    public var attached: [Module] { slot.modules }
}

/// An adapter that prepends keys and values to those of an attention.
public protocol KeyValueAdapter: Module {
    /// Keys and values `[tokens, heads, headSize]`.
    func keysAndValues() -> (keys: Tensor, values: Tensor)
}
