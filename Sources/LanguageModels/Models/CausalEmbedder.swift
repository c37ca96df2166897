import PEFTSupport
import Torch
import TorchNN

/// A decoder-only model without its output layer, whose pooled hidden states are sentence embeddings (Qwen3-Embedding):
/// transformers' `Qwen3Model` and others. Its modules lack the family's prefix, as in their files.
final class CausalEmbedder: Module, EncoderModel {
    let head: ModelHead
    let configuration: JSON
    var folderSettings = FolderSettings()
    let isCausal: Bool
    private let base: any CausalModel

    /// - Parameters:
    ///   - base: the decoder, created without an untied output layer.
    ///   - isCausal: whether attention is causal.
    init(_ base: any CausalModel, head: ModelHead, isCausal: Bool, configuration: JSON) {
        (self.base, self.head, self.isCausal, self.configuration) = (base, head, isCausal, configuration)
    }

    private var prefix: String {
        base.modelFamily.modules.prefix.isEmpty ? "" : base.modelFamily.modules.prefix + "."
    }
    private func bare(_ path: String) -> String {
        path + "." == prefix ? "" : path.hasPrefix(prefix) ? String(path.dropFirst(prefix.count)) : path
    }

    override func children() -> [(key: String, module: Module)] {
        base.children().map { (bare($0.key), $0.module) }
    }

    var modelFamily: ModelFamily { base.modelFamily }
    var architecture: Architecture { .decoder }
    var outputLayer: String { "" }
    var inputEmbedding: String { bare(base.inputEmbedding) }
    var vocabularySize: Int { base.vocabularySize }
    var positionLimit: Int? { base.positionLimit }
    func canonicalName(_ name: String) -> String { bare(base.canonicalName(name)) }
    func isIgnorable(_ name: String) -> Bool {
        base.isIgnorable(name) || modelFamily.modules.output.contains(name)
    }
    func fusedParts(of path: String) -> [FusedPart]? { base.fusedParts(of: prefix + path) }
    var embeddingScale: Double { base.embeddingScale }
    var buffers: Set<String> { Set(base.buffers.map(bare)) }
    func initialDeviation(of path: String) -> Double? { base.initialDeviation(of: prefix + path) }

    var inputSite: InputSite { base.inputSite }
    var prefixSites: [KeyValueSite] { base.prefixSites }
    func embed(_ ids: Tensor) -> Tensor { base.embed(ids) }
    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor { base.decode(x, context) }
    func rowScores(_ states: Tensor) -> Tensor { states }
    func tokenScores(_ states: Tensor) -> Tensor { states }
}
