import LanguageModels
import PEFTSupport
import TorchNN

/// Ranges of layers that are stacked in place of the model's own (`layer_replication`): `[[0, 4], [2, 5]]` makes the
/// layers 0, 1, 2, 3, 2, 3, 4. The copies share their weights; an adapter has tensors for each.
package struct LayerReplication: Sendable, Equatable {
    /// Start and end of each range.
    package let ranges: [[Int]]

    /// Parses `0-4,2-5` from the command line, or pairs from a file.
    init?(_ json: JSON) throws {
        let pairs: [[Int]]
        switch json {
        case .null, [], "": return nil
        case .string(let text):
            pairs = text.split(separator: ",").map { part in
                part.split(separator: "-").map { Int($0.trimmingSpaces) ?? -1 }
            }
        default: pairs = try (json.array ?? [.array([])]).map(integers)
        }
        guard pairs.allSatisfy({ $0.count == 2 && $0[0] >= 0 && $0[0] < $0[1] && $0[1] <= 4096 }),
            pairs.reduce(0, { $0 + $1[1] - $1[0] }) <= 4096
        else {
            throw PEFTError(
                "layer_replication is \(json.text(indent: nil))",
                remedy: "use ranges of layers such as 0-4,2-5 or [[0, 4], [2, 5]]")
        }
        ranges = pairs
    }

    var json: JSON { .array(ranges.map { .array($0.map { .integer($0) }) }) }

    /// The own layer of each layer of the stack.
    var order: [Int] { ranges.flatMap { Array($0[0]..<$0[1]) } }

    /// A model that can be stacked this way.
    /// - Throws: ``PEFTError`` if it can't.
    func stacking(_ model: any LanguageModel) throws -> any LayerStacking {
        guard let model = model as? any LayerStacking else {
            throw PEFTError(
                "layer_replication is not supported for \(model.family) models",
                remedy: "use it with Llama, Mistral, Qwen2, Qwen3 and similar models")
        }
        if let obstacle = model.stackingObstacle { throw obstacle }
        let sites = model.stackedLayers.flatMap { $0.namedModules().map(\.module) }.compactMap {
            $0 as? any AdapterSite
        }
        guard model.layerOrder == nil, sites.allSatisfy({ $0.attached.isEmpty }) else {
            throw PEFTError(
                "layer_replication stacks the layers anew, but another adapter is active on them",
                remedy: "deactivate the other one first")
        }
        return model
    }
}

/// The stack that an active adapter puts in place of the model's layers.
final class ReplicatedLayers {
    private let model: any LayerStacking
    private let order: [Int]
    /// The copies while the adapter is active.
    private var copies: [Module]?

    init(_ replication: LayerReplication, on model: any LanguageModel) throws {
        self.model = try replication.stacking(model)
        order = replication.order
    }

    var isPut: Bool { copies != nil }

    /// Stacks the copies; their sites are new each time.
    func put() {
        guard copies == nil else { return }
        model.stack(order)
        copies = model.stackedLayers
    }

    /// - Throws: ``PEFTError`` if another adapter is active on the copies.
    func checkRemoval(of own: [any AdapterModule]) throws {
        let known = Set(own.map { ObjectIdentifier($0) })
        let sites = (copies ?? []).flatMap { $0.namedModules().map(\.module) }.compactMap { $0 as? any AdapterSite }
        guard sites.allSatisfy({ $0.attached.allSatisfy { known.contains(ObjectIdentifier($0)) } }) else {
            throw PEFTError(
                "another adapter is active on the layers that this one stacked", remedy: "deactivate that one first")
        }
    }

    func remove() {
        guard copies != nil else { return }
        copies = nil
        model.stack(nil)
    }
}

extension MethodChoice {
    /// How the model's layers are stacked anew; `nil` if they aren't.
    var replication: LayerReplication? { (configuration as? LoRA.Configuration)?.extras.replication }
}

extension ModelOutline {
    /// The outline of the model with its layers in this order.
    func stacking(_ order: [Int]) throws -> ModelOutline {
        // The outline of a model whose layers are stacked already.
        if layerOrder == order { return self }
        guard let layersPath, layerOrder == nil else {
            throw PEFTError(
                "layer_replication is not supported for this \(family) model",
                remedy: "use it with Llama, Mistral, Qwen2, Qwen3 and similar models")
        }
        let count = (modules.compactMap { layer(of: $0, below: layersPath) }.max() ?? -1) + 1
        guard let most = order.max(), most < count else {
            throw PEFTError(
                "layer_replication names layer \(order.max() ?? 0), but the model has \(count) layers",
                remedy: "use ranges up to \(count)")
        }
        func stacked<Entry>(_ entries: [Entry], _ path: (Entry) -> String, _ renamed: (Entry, String) -> Entry)
            -> [Entry]
        {
            let layers = Dictionary(grouping: entries) { layer(of: path($0), below: layersPath) ?? -1 }
            let first = entries.firstIndex { layer(of: path($0), below: layersPath) != nil } ?? entries.count
            let rest = (
                before: entries[..<first],
                after: entries[first...].filter { layer(of: path($0), below: layersPath) == nil }
            )
            let copies = order.enumerated().flatMap { position, own in
                (layers[own] ?? []).map { entry in
                    let tail = path(entry).dropFirst("\(layersPath).\(own)".count)
                    return renamed(entry, "\(layersPath).\(position)\(tail)")
                }
            }
            return rest.before + copies + rest.after
        }
        var outline = self
        outline.layerOrder = order
        outline.modules = stacked(modules, { $0 }) { $1 }
        outline.linears = stacked(linears, \.path) {
            LinearSite(
                path: $1, inputs: $0.inputs, outputs: $0.outputs, hasBias: $0.hasBias, groupSize: $0.groupSize,
                parts: $0.parts)
        }
        outline.outputs = stacked(outputs, \.path) {
            SublayerSite(path: $1, kind: $0.kind, size: $0.size, knowsStream: $0.knowsStream)
        }
        outline.keyValues = stacked(keyValues, \.path) {
            KeyValueSiteOutline(path: $1, kind: $0.kind, role: $0.role, heads: $0.heads, headSize: $0.headSize)
        }
        // Parameters that copies share are counted once.
        return outline
    }

    private func layer(of path: String, below list: String) -> Int? {
        guard path.hasPrefix(list + ".") else { return nil }
        return path.dropFirst(list.count + 1).split(separator: ".").first.flatMap { Int($0) }
    }
}
