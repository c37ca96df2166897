import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch

/// An adapter in memory. Running sequences refer to it, so that it stays until they end, also if its name is unloaded or
/// stands for another folder by then.
final class LoadedAdapter {
    /// Its name in the ``AdapterSet``: unlike ``name``, never used twice.
    let key: String
    let name: String
    let bytes: Int
    let virtualTokens: Int
    /// Whether it acts on what all sequences of a batch share, so that its sequences have steps of their own.
    let isExclusive: Bool
    /// Which keys and values its sequences share with others.
    let prefixes: PrefixRule
    /// Keys and values of the virtual tokens, once a sequence has computed them.
    var virtualPrefix: CachedSequence?
    /// Number of sequences that use it.
    var running = 0

    init(key: String, name: String, bytes: Int, virtualTokens: Int, isExclusive: Bool, prefixes: PrefixRule) {
        (self.key, self.name, self.bytes) = (key, name, bytes)
        (self.virtualTokens, self.isExclusive, self.prefixes) = (virtualTokens, isExclusive, prefixes)
    }
}

/// The adapters of a server by name: loads them when they are needed, within a memory limit, and unloads those that were
/// used least recently. Belongs to the engine's thread.
final class AdapterStore {
    private final class Entry {
        let folder: URL
        let isPinned: Bool
        /// A number that no other adapter had, also of the same name.
        let version: Int
        var loaded: LoadedAdapter?
        /// What was read ahead for the next load.
        var source: AdapterSource?
        var method: String?
        var bytes = 0
        var requests = 0
        var lastUse = 0
        var problem: String?
        /// Whether it is known to change the model's outputs.
        var isEffective = false

        init(folder: URL, isPinned: Bool, version: Int) {
            (self.folder, self.isPinned, self.version) = (folder, isPinned, version)
        }
    }

    let set: AdapterSet
    let batch: MixedBatch
    private let probe: EffectProbe
    private let limit: Int
    /// Memory of a virtual token's keys and values, if they are kept.
    private let virtualTokenBytes: Int
    private var entries: [String: Entry] = [:]
    /// The names in order, which ``statuses`` need after each step; `nil` if a name has come or gone.
    private var sortedNames: [String]?
    /// Adapters that are no longer known by a name and are in use.
    private var retired: [LoadedAdapter] = []
    private var clock = 0
    private var version = 0
    private var entryVersion = 0
    private(set) var loads = 0
    private(set) var evictions = 0

    /// - Parameters:
    ///   - limit: maximum memory of all adapters, in bytes.
    ///   - virtualTokenBytes: memory of a virtual token's keys and values, if they are kept.
    init(_ model: any LanguageModel, limit: Int, virtualTokenBytes: Int = 0) {
        set = AdapterSet(on: model, isFrozen: true)
        batch = MixedBatch(set)
        probe = EffectProbe(model)
        (self.limit, self.virtualTokenBytes) = (limit, virtualTokenBytes)
    }

    var bytes: Int { entries.values.reduce(0) { $0 + ($1.loaded?.bytes ?? 0) } + retired.reduce(0) { $0 + $1.bytes } }

    func isKnown(_ name: String) -> Bool { entries[name] != nil }

    // MARK: Changes

    /// Adds an adapter, or replaces one in place, and loads it.
    /// - Throws: ``ServingError`` if the name is taken, or the adapter doesn't fit the model; nothing changes then.
    func add(_ name: String, _ source: AdapterSource, isPinned: Bool, replaces: Bool) throws {
        guard replaces || entries[name] == nil else {
            throw ServingError(
                .invalid, "adapter '\(name)' is loaded already; unload it first, or set load_inplace",
                parameter: "lora_name")
        }
        let entry = newEntry(source, isPinned: isPinned)
        let before = entries[name]
        entry.requests = before?.requests ?? 0
        let adapter = try load(name, entry)
        retire(before)
        entry.loaded = adapter
        touch(entry)
        insert(name, entry)
    }

    private func insert(_ name: String, _ entry: Entry) {
        if entries.updateValue(entry, forKey: name) == nil { sortedNames = nil }
    }

    private func newEntry(_ source: AdapterSource, isPinned: Bool) -> Entry {
        entryVersion += 1
        let entry = Entry(folder: source.url, isPinned: isPinned, version: entryVersion)
        entry.source = source
        return entry
    }

    /// Adds or replaces an adapter of a watched folder, and loads it if there is room. One that doesn't fit the model is
    /// known with its problem, which requests get.
    func register(_ name: String, _ source: AdapterSource) {
        let entry = newEntry(source, isPinned: false)
        entry.requests = entries[name]?.requests ?? 0
        // The adapter of before, if any, is no longer what the folder contains.
        retire(entries[name])
        insert(name, entry)
        do { entry.loaded = try load(name, entry, evicts: false) } catch {
            if let error = error as? ServingError, error.kind == .adapter { entry.problem = error.message }
        }
        // It may be long until a request needs it.
        entry.source = nil
    }

    /// Keeps what was read of an adapter until a request needs it.
    func put(_ source: AdapterSource, version: Int) {
        guard let entry = entries.values.first(where: { $0.version == version }), entry.loaded == nil else { return }
        entry.source = source
    }

    /// Forgets an adapter; its running sequences continue with it.
    /// - Throws: ``ServingError`` for an unknown name.
    func remove(_ name: String) throws {
        guard let entry = entries.removeValue(forKey: name) else { throw unknown(name) }
        sortedNames = nil
        retire(entry)
    }

    private func unknown(_ name: String) -> ServingError {
        let hint = nearestName(to: name, in: entries.keys.sorted()).map { "; did you mean '\($0)'?" } ?? ""
        return ServingError(.unknownModel, "unknown adapter '\(name)'\(hint)", parameter: "lora_name")
    }

    // MARK: Use

    /// What a request for an adapter gets.
    enum Use {
        case ready(LoadedAdapter)
        /// Other adapters in use leave no memory for it.
        case wait
        /// Its folder must be read first; ``AdapterStore/put(_:version:)`` follows.
        case read(URL, version: Int)
    }

    /// The adapter for a request that starts now.
    /// - Throws: ``ServingError`` for an unknown name, and an adapter that doesn't fit the model or the memory.
    func use(_ name: String) throws -> Use {
        guard let entry = entries[name] else { throw unknown(name) }
        if let problem = entry.problem { throw ServingError(.adapter, problem, parameter: "model") }
        if entry.loaded == nil {
            guard entry.source != nil else { return .read(entry.folder, version: entry.version) }
            do { entry.loaded = try load(name, entry) } catch let error as ServingError {
                if case .busy = error.kind { return .wait }
                if error.kind == .adapter { entry.problem = error.message }
                throw error
            }
        }
        guard let adapter = entry.loaded else { return .wait }
        touch(entry)
        return .ready(adapter)
    }

    /// Whether sequences of this owner may come again.
    func isKnown(_ owner: PrefixOwner) -> Bool { owner.adapter.map { set.adapters[$0] != nil } ?? true }

    func countRequest(_ name: String) { entries[name]?.requests += 1 }

    /// Counts a sequence that ended.
    func release(_ adapter: LoadedAdapter) {
        adapter.running -= 1
        guard adapter.running == 0, let index = retired.firstIndex(where: { $0 === adapter }) else { return }
        retired.remove(at: index)
        try? set.remove(adapter.key)
    }

    private func touch(_ entry: Entry) {
        clock += 1
        entry.lastUse = clock
    }

    private func retire(_ entry: Entry?) {
        guard let adapter = entry?.loaded else { return }
        entry?.loaded = nil
        if adapter.running > 0 { retired.append(adapter) } else { try? set.remove(adapter.key) }
    }

    // MARK: Loading

    /// - Parameter evicts: whether others may be unloaded for it.
    private func load(_ name: String, _ entry: Entry, evicts: Bool = true) throws -> LoadedAdapter {
        version += 1
        let key = "\(name)#\(version)"
        let folder = try (entry.source ?? AdapterSource(entry.folder)).folder
        let needed = folder.storedBytes
        guard needed <= limit else {
            throw ServingError(
                .invalid, "adapter '\(name)' has \(needed) bytes, but --adapter-memory is \(limit)",
                parameter: "lora_path")
        }
        if evicts {
            try makeRoom(for: needed, except: entry)
        } else if bytes + needed > limit {
            throw ServingError(.busy(retryAfter: 1), "there is no room for adapter '\(name)' now")
        }
        let adapter: Adapter
        do { adapter = try set.add(folder, name: key) } catch {
            // The sentence of `peft verify`.
            let check = try? AdapterCheck(folder, on: set.model, batches: [])
            throw ServingError(
                .adapter, check?.problems.first ?? ServingError(.adapter, error).message, parameter: "lora_path")
        }
        do {
            if let obstacle = adapter.servingObstacle { throw obstacle }
            let obstacle = try batch.obstacle(key)
            if !entry.isEffective {
                let refusal = try probe.refusal(of: adapter, in: folder) {
                    try obstacle == nil ? batch.run([key], $0) : running(exclusively: key, $0)
                }
                if let refusal { throw ServingError(.adapter, refusal, parameter: "lora_path") }
                entry.isEffective = true
            }
            let virtual = try virtualTokens(key, isExclusive: obstacle != nil)
            let bytes = adapter.frozenBytes + virtual * virtualTokenBytes
            loads += 1
            entry.source = nil
            entry.method = adapter.choice.label
            entry.bytes = bytes
            let canShare = obstacle == nil && virtual == 0
            return LoadedAdapter(
                key: key, name: name, bytes: bytes, virtualTokens: virtual, isExclusive: obstacle != nil,
                prefixes: PrefixRule(adapter, key: key, canShareBase: canShare))
        } catch {
            try? set.remove(key)
            throw ServingError(.adapter, error)
        }
    }

    /// Number of virtual tokens before each sequence.
    private func virtualTokens(_ key: String, isExclusive: Bool) throws -> Int {
        func count() throws -> Int {
            try withTorchErrors { withoutGradients { set.model.virtualTokens(forRows: 1).first ?? 0 } }
        }
        guard isExclusive else { return try batch.run([key], count) }
        return try running(exclusively: key, count)
    }

    /// Runs `body` with an adapter that can't share a batch.
    func running<Result>(exclusively key: String, _ body: () throws -> Result) throws -> Result {
        try set.activate(key)
        defer { try? set.activate(nil) }
        return try body()
    }

    /// Unloads adapters that are neither in use nor pinned, those used least recently first.
    private func makeRoom(for needed: Int, except own: Entry) throws {
        while bytes + needed > limit {
            let idle = entries.values.filter { entry in
                entry !== own && !entry.isPinned && entry.loaded.map { $0.running == 0 } ?? false
            }
            guard let oldest = idle.min(by: { $0.lastUse < $1.lastUse }) else {
                let isUsed = !retired.isEmpty || entries.values.contains { $0.loaded?.running ?? 0 > 0 }
                guard isUsed else {
                    throw ServingError(
                        .invalid,
                        "an adapter of \(needed) bytes doesn't fit beside the pinned ones; raise --adapter-memory (\(limit) bytes)",
                        parameter: "lora_path")
                }
                throw ServingError(.busy(retryAfter: 1), "all adapters in memory are in use; try again later")
            }
            retire(oldest)
            evictions += 1
        }
    }

    /// All adapters, by name.
    var statuses: [AdapterStatus] {
        let names = sortedNames ?? entries.keys.sorted()
        sortedNames = names
        return names.compactMap { name in
            entries[name].map { entry in
                AdapterStatus(
                    name: name, folder: entry.folder,
                    state: entry.problem != nil ? .rejected : entry.loaded == nil ? .unloaded : .loaded,
                    isPinned: entry.isPinned, method: entry.method, bytes: entry.bytes,
                    sharesBatches: !(entry.loaded?.isExclusive ?? false),
                    virtualTokens: entry.loaded?.virtualTokens ?? 0,
                    running: entry.loaded?.running ?? 0, requests: entry.requests, problem: entry.problem,
                    version: entry.version, isRead: entry.source != nil)
            }
        }
    }
}

extension AdapterFolder {
    /// Memory of the stored tensors in fp32, in bytes.
    var storedBytes: Int { tensorShapes.reduce(0) { $0 + 4 * $1.shape.reduce(1, *) } }
}
