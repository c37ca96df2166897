import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Several adapters over one base model, switched by name, without copying or changing the base.
///
/// Adapters are for inference only, except the one passed to ``setTrainable(_:)``.
public final class AdapterSet {
    package let model: any LanguageModel
    /// The adapters by name.
    public private(set) var adapters: [String: Adapter] = [:]
    /// Names in insertion order.
    public private(set) var names: [String] = []
    /// Name of the active adapter; `nil` for the base model.
    public private(set) var active: String?

    /// The number under which an adapter is attached for mixed batches (``RowRouting``), for those that ran in one. They stay
    /// attached, since a server's steps are short.
    private var routes: [String: Int] = [:]
    private var routeCount = 0

    /// Whether nothing changes the adapters' parameters while they are in the set, as in a server.
    let isFrozen: Bool

    /// No adapters yet.
    public convenience init(on model: any LanguageModel) { self.init(on: model, isFrozen: false) }

    /// - Parameter isFrozen: whether nothing changes the adapters' parameters while they are in the set, as in a server.
    package init(on model: any LanguageModel, isFrozen: Bool) { (self.model, self.isFrozen) = (model, isFrozen) }

    deinit { for name in routes.keys { endRoute(of: name) } }

    /// Loads an adapter for inference without activating it.
    /// - Throws: ``PEFTError`` if it doesn't fit the model or the name is taken; the set is then unchanged.
    @discardableResult
    public func add(_ folder: AdapterFolder, name: String) throws -> Adapter {
        try add(name) { try folder.attach(to: model, name: name) }
    }

    /// Adds an adapter that is attached to the model, under its own name, and deactivates it.
    /// - Throws: ``PEFTError`` if it belongs to another model, can't be deactivated, or the name is taken.
    public func add(_ adapter: Adapter) throws {
        guard adapter.model === model else {
            throw PEFTError("adapter '\(adapter.name)' belongs to another model", remedy: "load it onto this one")
        }
        try add(adapter.name) {
            adapter.setTrainable(false)
            return adapter
        }
    }

    @discardableResult
    private func add(_ name: String, _ make: () throws -> Adapter) throws -> Adapter {
        guard adapters[name] == nil else {
            throw PEFTError("adapter '\(name)' already exists", remedy: "choose another name")
        }
        return try onBase {
            let adapter = try make()
            try adapter.deactivate()
            adapters[name] = adapter
            names.append(name)
            return adapter
        }
    }

    /// Detaches and removes an adapter.
    /// - Throws: ``PEFTError`` for an unknown name.
    public func remove(_ name: String) throws {
        _ = try named(name)
        if active == name { try activate(nil) }
        endRoute(of: name)
        adapters[name] = nil
        names.removeAll { $0 == name }
    }

    /// Switches to an adapter, or to the base model if `nil`.
    /// - Throws: ``PEFTError`` for an unknown name, with the nearest match.
    public func activate(_ name: String?) throws {
        guard name != active else { return }
        let next = try name.map { try named($0) }
        if let active { try adapters[active]?.deactivate() }
        next?.activate()
        active = name
    }

    /// Enables gradients for this adapter only; for none if `nil`.
    /// - Throws: ``PEFTError`` for an unknown name.
    public func setTrainable(_ name: String?) throws {
        let chosen = try name.map { try named($0) }
        for adapter in adapters.values { adapter.setTrainable(adapter === chosen) }
    }

    /// Runs `body` with no adapter of the set active, then restores the active one.
    /// - Throws: ``PEFTError`` if the active adapter is merged, as the base is then changed.
    func onBase<Result>(_ body: () throws -> Result) throws -> Result {
        let before = active
        if let before, adapters[before]?.isMerged == true {
            throw PEFTError("adapter '\(before)' is merged into the base model", remedy: "unmerge it first")
        }
        try activate(nil)
        defer {
            if let before, let adapter = adapters[before] {
                adapter.activate()
                active = before
            }
        }
        return try body()
    }

    // MARK: Mixed batches

    /// The route of an adapter in mixed batches, which has no effect outside of them.
    /// - Parameter check: throws if it can't share a batch; called once per adapter.
    func route(of name: String, check: () throws -> Void) throws -> Int {
        if let route = routes[name] { return route }
        let adapter = try named(name)
        try check()
        for (_, site, module) in adapter.attached { site.attach(module, route: routeCount) }
        routes[name] = routeCount
        routeCount += 1
        return routeCount - 1
    }

    private func endRoute(of name: String) {
        guard let route = routes.removeValue(forKey: name), let adapter = adapters[name] else { return }
        for (_, site, _) in adapter.attached { site.clear(route: route) }
    }

    func named(_ name: String) throws -> Adapter {
        if let adapter = adapters[name] { return adapter }
        let hint = nearestName(to: name, in: names).map { "did you mean '\($0)'?" }
        throw PEFTError(
            "unknown adapter '\(name)'",
            remedy: hint ?? (names.isEmpty ? "add it first" : "loaded adapters are \(names.joined(separator: ", "))"))
    }
}
