import PEFTSupport
import Torch
import TorchNN

/// A decoder-only model with a classification head on each sequence's last token instead of the language-modeling
/// head: transformers' `LlamaForSequenceClassification` and others.
final class CausalClassifier: Module, EncoderModel {
    let head: ModelHead
    let configuration: JSON
    var folderSettings = FolderSettings()
    private let base: any CausalModel
    @ModuleInfo(key: "") var module: Module
    @ModuleInfo var score: Linear

    /// - Parameters:
    ///   - base: the decoder, created without an untied output layer.
    ///   - size: the hidden size.
    init(_ base: any CausalModel, size: Int, head: ModelHead, configuration: JSON) {
        (self.base, self.head, self.configuration) = (base, head, configuration)
        _module.wrappedValue = base
        _score.wrappedValue = Linear(size, head.outputs, bias: false)
    }

    var modelFamily: ModelFamily { base.modelFamily }
    var architecture: Architecture { .decoder }
    var outputLayer: String { "score" }
    var inputEmbedding: String { base.inputEmbedding }
    var vocabularySize: Int { base.vocabularySize }
    var positionLimit: Int? { base.positionLimit }
    var newModules: [String] { ["score"] }
    func canonicalName(_ name: String) -> String { base.canonicalName(name) }
    func isIgnorable(_ name: String) -> Bool { base.isIgnorable(name) || name.hasPrefix("lm_head.") }
    func fusedParts(of path: String) -> [FusedPart]? { base.fusedParts(of: path) }
    var embeddingScale: Double { base.embeddingScale }
    var buffers: Set<String> { base.buffers }
    func initialDeviation(of path: String) -> Double? {
        path == "score.weight" ? 0.02 : base.initialDeviation(of: path)
    }

    var inputSite: InputSite { base.inputSite }
    var prefixSites: [KeyValueSite] { base.prefixSites }
    var isCausal: Bool { true }
    func embed(_ ids: Tensor) -> Tensor { base.embed(ids) }
    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor { base.decode(x, context) }
    func rowScores(_ states: Tensor) -> Tensor { score(states) }
    func tokenScores(_ states: Tensor) -> Tensor { score(states) }
}
