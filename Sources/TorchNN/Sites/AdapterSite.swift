import PEFTSupport

/// A place in a model where adapters of one kind attach: projections, embeddings, sublayer outputs, embedded inputs,
/// keys and values of attentions.
package protocol AdapterSite: Module {
    /// Attaches an adapter on top of those that all sequences use or, with a route, of those of one route.
    /// - Returns: whether this kind of site supports this kind of adapter.
    @discardableResult
    func attach(_ adapter: Module, route: Int?) -> Bool
    /// Attaches an adapter below all others.
    func attachBeneath(_ adapter: Module)
    /// Detaches an adapter, wherever it is in the stack, except from routes.
    func detach(_ adapter: Module)
    /// Removes the adapters of one route.
    func clear(route: Int)
    /// Adapters that all sequences use, the lowest first.
    var attached: [Module] { get }
}

/// The adapters at one site: those that all sequences of a batch use, and those of single routes (``RowRouting``).
package struct AdapterSlot<Adapter> {
    /// The first is applied first; forward order is merge order.
    package var active: [Adapter] = []
    var routed: [Int: [Adapter]] = [:]

    package init() {}

    package var isEmpty: Bool { active.isEmpty && routed.isEmpty }

    mutating func attach(_ adapter: Module, route: Int?) -> Bool {
        guard let adapter = adapter as? Adapter else { return false }
        if let route { routed[route, default: []].append(adapter) } else { active.append(adapter) }
        return true
    }

    mutating func attachBeneath(_ adapter: Module) {
        if let adapter = adapter as? Adapter { active.insert(adapter, at: 0) }
    }

    mutating func detach(_ adapter: Module) { active.removeAll { ($0 as? Module) === adapter } }

    mutating func clear(route: Int) { routed[route] = nil }

    var modules: [Module] { active.compactMap { $0 as? Module } }
}
