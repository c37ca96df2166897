import Support

/// A place in a model where adapters of one kind attach: projections, embeddings, outputs of sublayers, embedded
/// inputs, keys and values of attentions.
public protocol AdapterSite: Module {
    /// Puts an adapter on top of those that every row uses or, with a route, of those of one route.
    /// - Returns: whether this kind of site takes this kind of adapter.
    @discardableResult
    func attach(_ adapter: Module, route: Int?) -> Bool
    /// Puts an adapter beneath all others.
    func attachBeneath(_ adapter: Module)
    /// Takes the adapter off, wherever it is.
    func detach(_ adapter: Module)
    /// Forgets one route's adapters.
    func clear(route: Int)
    /// Adapters that every row uses, the lowest first.
    var attached: [Module] { get }
}

/// The adapters at one site: those that every row of a batch uses, and those of single routes (``RowRouting``).
public struct AdapterSlot<Adapter> {
    /// The first acts first; forward order is merge order.
    public var active: [Adapter] = []
    var routed: [Int: [Adapter]] = [:]

    public init() {}

    public var isEmpty: Bool { active.isEmpty && routed.isEmpty }

    mutating func attach(_ adapter: Module, route: Int?) -> Bool {
        guard let adapter = adapter as? Adapter else { return false }
        if let route { routed[route, default: []].append(adapter) } else { active.append(adapter) }
        return true
    }

    mutating func attachBeneath(_ adapter: Module) {
        if let adapter = adapter as? Adapter { active.insert(adapter, at: 0) }
    }

    mutating func detach(_ adapter: Module) {
        active.removeAll { ($0 as? Module) === adapter }
        for route in routed.keys { routed[route]?.removeAll { ($0 as? Module) === adapter } }
    }

    mutating func clear(route: Int) { routed[route] = nil }

    var modules: [Module] { active.compactMap { $0 as? Module } }
}
