import PEFTSupport
import Torch
import TorchNN

/// A model whose layers can be stacked in another order, some more than once, with shared weights (depth up-scaling, Kim
/// et al. 2023; `layer_replication` in Hugging Face PEFT). Each copy has sites of its own for adapters.
package protocol LayerStacking: LanguageModel {
    /// Path of the list of layers.
    var layersPath: String { get }
    /// The number of the model's own layers.
    var layerCount: Int { get }
    /// Why the layers can't be stacked anew; `nil` if they can.
    var stackingObstacle: PEFTError? { get }
    /// The own layers in the current order; `nil` if it is theirs.
    var layerOrder: [Int]? { get }
    /// Stacks copies of the own layers in this order; `nil` restores the own ones.
    func stack(_ order: [Int]?)
    /// The layers of the current stack.
    var stackedLayers: [Module] { get }
}

extension Llama: LayerStacking {
    package var layersPath: String { "\(settings.family.modules.prefix).layers" }
    package var layerCount: Int { settings.layers }
    package var stackedLayers: [Module] { layers }

    package var stackingObstacle: PEFTError? {
        let known: [Module.Type] = [
            LlamaBlock.self, GroupedQueryAttention.self, GatedFeedForward.self, FusedFeedForward.self,
            UngatedFeedForward.self, RMSNorm.self, Linear.self, OutputSite.self, KeyValueSite.self,
        ]
        let areKnown = layers.flatMap { $0.namedModules() }.allSatisfy { entry in
            known.contains { $0 == type(of: entry.module) }
        }
        guard Set(settings.windows).count <= 1, Set(settings.details.rotatedLayers ?? []).count <= 1, areKnown else {
            return PEFTError(
                "the layers of this \(settings.family.name) model differ or have experts, so they can't be stacked anew",
                remedy: "use an adapter without 'layer_replication'")
        }
        return nil
    }

    package func stack(_ order: [Int]?) {
        let own = ownLayers ?? layers
        guard let order else {
            (layers, ownLayers, layerOrder) = (own, nil, nil)
            return
        }
        layers = order.enumerated().map { position, layer in
            let copy = LlamaBlock(settings, layer: layer)
            copy.shareWeights(of: own[layer])
            for site in copy.namedModules().compactMap({ $0.module as? KeyValueSite }) { site.position = position }
            return copy
        }
        (ownLayers, layerOrder) = (own, order)
    }
}

extension Module {
    /// Uses the weights of a module of the same structure.
    func shareWeights(of other: Module) {
        part = other.part
        for (own, source) in zip(namedModules().map(\.module), other.namedModules().map(\.module)) {
            if let own = own as? Linear, let source = source as? Linear { own.weight = source.weight }
            for (mine, its) in zip(own.ownParameters(), source.ownParameters()) where mine.parameter !== its.parameter
            {
                mine.parameter.tensor = its.parameter.tensor
            }
        }
    }
}
