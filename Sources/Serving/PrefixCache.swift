import LanguageModels
import PEFT
import Torch
import TorchNN

/// Keys and values of sequences that have ended, for later ones that begin with the same tokens and share them. Those used least
/// recently make room. Belongs to the engine's thread.
final class PrefixCache {
    private struct Entry {
        let owner: PrefixOwner
        let tokens: [Int]
        let sequence: CachedSequence
        let bytes: Int
        var lastUse: Int
    }

    /// Length from which a prefix is worth its copy.
    static let shortest = 16
    private static let mostEntries = 512

    private var entries: [Entry] = []
    private var clock = 0
    private(set) var bytes = 0

    /// Adds a sequence, which nothing else changes any longer.
    /// - Parameter tokens: the tokens whose keys and values it contains.
    func insert(_ sequence: CachedSequence, _ owner: PrefixOwner, tokens: [Int], bytes: Int) {
        guard tokens.count >= Self.shortest else { return }
        if entries.contains(where: { $0.owner == owner && $0.tokens.starts(with: tokens) }) { return }
        remove { $0.owner == owner && tokens.starts(with: $0.tokens) }
        if entries.count >= Self.mostEntries { removeOldest() }
        clock += 1
        entries.append(Entry(owner: owner, tokens: tokens, sequence: sequence, bytes: bytes, lastUse: clock))
        self.bytes += bytes
    }

    /// The sequence that has keys and values of the most of these tokens, and of how many.
    func longest(_ tokens: [Int], _ owner: PrefixOwner) -> (sequence: CachedSequence, length: Int)? {
        var best: (index: Int, length: Int)?
        for (index, entry) in entries.enumerated() where owner.shared(tokens.count, with: entry.owner) > 0 {
            let length = owner.shared(Self.commonLength(tokens, entry.tokens), with: entry.owner)
            if length >= Self.shortest, length > best?.length ?? 0 { best = (index, length) }
        }
        guard let best else { return nil }
        clock += 1
        entries[best.index].lastUse = clock
        return (entries[best.index].sequence, best.length)
    }

    static func commonLength(_ a: [Int], _ b: [Int]) -> Int {
        var length = 0
        while length < min(a.count, b.count), a[length] == b[length] { length += 1 }
        return length
    }

    /// Removes entries until they and `others` bytes fit into `limit`, as far as possible.
    func makeRoom(for others: Int, limit: Int) { while bytes + others > limit, !entries.isEmpty { removeOldest() } }

    /// Removes the entries of owners that can't come again.
    func keep(_ isKnown: (PrefixOwner) -> Bool) { remove { !isKnown($0.owner) } }

    private func removeOldest() {
        guard let oldest = entries.map(\.lastUse).min() else { return }
        remove { $0.lastUse == oldest }
    }

    private func remove(_ condition: (Entry) -> Bool) {
        bytes -= entries.filter(condition).reduce(0) { $0 + $1.bytes }
        entries.removeAll(where: condition)
    }
}

extension Adapter {
    /// Whether keys and values of all layers are those of the base, since the adapter acts only behind those of the last
    /// layer: on its feed-forward network, or on its attention's queries or output.
    var leavesKeysAndValues: Bool {
        let names = model.modelFamily.modules
        guard model.architecture == .decoder,
            let last = model.namedModules().last(where: {
                ($0.module as? KeyValueSite)?.kind == .attention || $0.module is any RecurrentLayer
            })?.path
        else { return false }
        let parts = last.split(separator: ".").map(String.init)
        guard let number = parts.lastIndex(where: { Int($0) != nil }) else { return false }
        let layer = Array(parts[...number])
        func isBehind(_ path: String) -> Bool {
            let own = path.split(separator: ".").map(String.init)
            guard own.count > layer.count, own.starts(with: layer) else { return false }
            let rest = own.dropFirst(layer.count)
            if rest.contains(where: names.feedForward.contains) { return true }
            return rest.contains(where: names.attention.contains) && ["q_proj", "o_proj"].contains(rest.last)
        }
        return attached.allSatisfy { ($0.adapter as? any LinearAdapter) != nil && isBehind($0.path) }
            && trained.allSatisfy { isBehind($0.path.split(separator: ".").dropLast().joined(separator: ".")) }
    }
}
