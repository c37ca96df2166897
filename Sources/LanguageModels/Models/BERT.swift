import PEFTSupport
import Torch
import TorchNN

/// BERT (Devlin et al. 2019) and other encoders with its head: a pooler and classifier over the first position, a
/// classifier of each token, or no head.
package final class BERT: Module, PretrainedEncoder {
    package let head: ModelHead
    let settings: BERTConfiguration
    let names: EncoderNames
    package var folderSettings = FolderSettings()
    @ModuleInfo var encoder: BERTEncoder
    @ModuleInfo var classifier: Linear?

    init(_ settings: BERTConfiguration, head: ModelHead) {
        (self.settings, self.head) = (settings, head)
        names = EncoderNames(
            settings.family.modules, heads: ["classifier", "cls", "qa_outputs", "predictions", "sop_classifier"],
            for: head.task)
        // As in transformers, token classification has no pooler.
        let hasPooler = head.task.scoresRows || head.task == .embeddings && settings.variant.pools
        _encoder = ModuleInfo(wrappedValue: BERTEncoder(settings, hasPooler: hasPooler), key: names.key)
        _classifier.wrappedValue = head.task == .embeddings ? nil : Linear(settings.size, head.outputs)
    }

    package var outputLayer: String { head.task == .embeddings ? "" : "classifier" }
    package var positionLimit: Int? { settings.positionLimit }
    package var newModules: [String] { head.task == .embeddings ? [] : ["classifier"] }

    /// Very old files use other names for the norms' tensors.
    package func canonicalName(_ name: String) -> String {
        names.canonical(
            name.replacing(".LayerNorm.gamma", with: ".LayerNorm.weight")
                .replacing(".LayerNorm.beta", with: ".LayerNorm.bias"))
    }
    package func isIgnorable(_ name: String) -> Bool {
        names.isHead(name) || name.hasSuffix("position_ids") || name.contains("pooler.")
    }
    package func initialDeviation(of path: String) -> Double? {
        guard path.hasPrefix("classifier.") || path.contains("pooler.") else { return nil }
        return path.hasSuffix(".bias") ? 0 : 0.02
    }

    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor {
        encoder(x, types: types, context)
    }
    func rowScores(_ states: Tensor) -> Tensor {
        let pooled = encoder.pooler?(states).tanh() ?? states
        return tokenScores(pooled)
    }
    func tokenScores(_ states: Tensor) -> Tensor {
        classifier?(dropout(states, settings.classifierDropout)) ?? states
    }
}

extension ModelFamily {
    static let bert = ModelFamily(
        name: "bert", constructor: .encoder { BERT(try BERTConfiguration($0, BERTVariant(), family: $1), head: $2) },
        modules: .bert(prefix: "bert"), tokenTypes: .embedded(key: "type_vocab_size", default: 2),
        adapterTargets: AdapterTargets(
            lora: .named(["query", "value"]), adaLoRA: .named(["query", "value"]),
            ia3: .named(["key", "value", "output.dense"]), ia3FeedForward: ["output.dense"], norms: ["LayerNorm"]),
        gguf: .none)
}

extension ModuleNames {
    static func bert(prefix: String) -> ModuleNames {
        ModuleNames(
            prefix: prefix, embedding: "embeddings.word_embeddings", output: .none, attention: ["attention"],
            feedForward: ["intermediate", "output", "pooler"], unquantized: [])
    }
}
