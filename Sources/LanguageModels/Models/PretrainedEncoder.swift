import PEFTSupport
import Torch
import TorchNN

/// An encoder of a family, with the names of its checkpoints; the class adds the heads.
protocol PretrainedEncoder: EncoderModel {
    associatedtype Settings: EncoderConfiguration
    associatedtype Layers: EncoderLayers
    var settings: Settings { get }
    var names: EncoderNames { get }
    var encoder: Layers { get }
}

/// What all encoders read from `config.json`.
protocol EncoderConfiguration: Sendable {
    var family: ModelFamily { get }
    var json: JSON { get }
}

/// An encoder's layers with their embeddings, without a head.
protocol EncoderLayers: Module {
    var words: Embedding { get }
    var inputSite: InputSite { get }
    /// The prefix site of each layer.
    var prefixSites: [KeyValueSite] { get }
}

extension PretrainedEncoder {
    package var modelFamily: ModelFamily { settings.family }
    package var configuration: JSON { settings.json }
    package var inputEmbedding: String { names.inputEmbedding }
    package var vocabularySize: Int { encoder.words.entries }
    package func canonicalName(_ name: String) -> String { names.canonical(name) }

    var inputSite: InputSite { encoder.inputSite }
    var prefixSites: [KeyValueSite] { encoder.prefixSites }
    func embed(_ ids: Tensor) -> Tensor { encoder.words(ids) }
}

/// Names of an encoder's tensors: with a prefix (`bert.`) in a model with a head, without it in a headless one.
struct EncoderNames {
    let modules: ModuleNames
    let heads: [String]
    let isBare: Bool

    /// - Parameter heads: first components of the names that belong to heads.
    init(_ modules: ModuleNames, heads: [String], for task: ModelTask) {
        (self.modules, self.heads, isBare) = (modules, heads, task == .embeddings)
    }

    /// Key of the encoder in the model.
    var key: String { isBare ? "" : modules.prefix }

    var inputEmbedding: String { isBare ? modules.embedding : modules.inputEmbedding }

    /// The model's path of a file's tensor name, from either kind of file.
    func canonical(_ name: String) -> String {
        guard !isHead(name) else { return name }
        let prefix = modules.prefix + "."
        let bare = name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : name
        return isBare ? bare : prefix + bare
    }

    func isHead(_ name: String) -> Bool { heads.contains { name.hasPrefix($0 + ".") } }
}
