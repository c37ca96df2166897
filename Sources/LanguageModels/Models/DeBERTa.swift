import PEFTSupport
import Torch
import TorchNN

/// DeBERTa v2 and v3 (He et al. 2021): a BERT with disentangled attention, and a pooler that pretrained files lack.
package final class DeBERTa: Module, PretrainedEncoder {
    package let head: ModelHead
    let settings: BERTConfiguration
    let names: EncoderNames
    package var folderSettings = FolderSettings()
    @ModuleInfo var encoder: BERTEncoder
    @ModuleInfo(key: "pooler.dense") var pooler: Linear?
    @ModuleInfo var classifier: Linear?
    private let poolerDropout: Double
    private let classifierDropout: Double
    private let activation: Activation

    init(_ settings: BERTConfiguration, head: ModelHead) throws {
        (self.settings, self.head) = (settings, head)
        let read = ConfigurationReader(json: settings.json)
        poolerDropout = try read.probability("pooler_dropout", default: 0)
        classifierDropout = try read.probability("cls_dropout", default: settings.dropout)
        activation = try read.activation("pooler_hidden_act")
        try read.refuse("pooler_hidden_size", unless: [.integer(settings.size)])
        names = EncoderNames(
            settings.family.modules,
            heads: ["classifier", "pooler", "cls", "lm_predictions", "mask_predictions", "qa_outputs"], for: head.task
        )
        _encoder = ModuleInfo(wrappedValue: BERTEncoder(settings, hasPooler: false), key: names.key)
        _pooler.wrappedValue = head.task.scoresRows ? Linear(settings.size, settings.size) : nil
        _classifier.wrappedValue = head.task == .embeddings ? nil : Linear(settings.size, head.outputs)
    }

    package var outputLayer: String { head.task == .embeddings ? "" : "classifier" }
    package var positionLimit: Int? { settings.positionLimit }
    package var newModules: [String] {
        head.task == .embeddings ? [] : head.task.scoresRows ? ["pooler", "classifier"] : ["classifier"]
    }
    package func isIgnorable(_ name: String) -> Bool {
        names.isHead(name) || name.hasSuffix("position_ids") || name.contains("position_embeddings")
    }
    package func initialDeviation(of path: String) -> Double? {
        guard path.hasPrefix("classifier.") || path.hasPrefix("pooler.") else { return nil }
        return path.hasSuffix(".bias") ? 0 : 0.02
    }

    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor {
        encoder(x, types: types, context)
    }
    func rowScores(_ states: Tensor) -> Tensor {
        let pooled = pooler.map { activation($0(dropout(states, poolerDropout))) } ?? states
        return classifier?(dropout(pooled, classifierDropout)) ?? pooled
    }
    func tokenScores(_ states: Tensor) -> Tensor { classifier?(dropout(states, settings.dropout)) ?? states }
}

extension ModelFamily {
    static let debertaV2 = ModelFamily(
        name: "deberta-v2",
        constructor: .encoder { json, family, head in
            var names = BERTVariant.Names()
            names.projection = "embeddings.embed_proj"
            let variant = BERTVariant(
                names: names, pools: false, classifierDropoutKey: "hidden_dropout_prob", isDisentangled: true,
                vocabularySize: 128_100, size: 1536,
                embeddingSize: ConfigurationReader(json: json).json["hidden_size"]?.int ?? 1536, layers: 24,
                heads: 24,
                feedForwardSize: 6144, types: 0, epsilon: 1e-7)
            return try DeBERTa(BERTConfiguration(json, variant, family: family), head: head)
        },
        modules: ModuleNames(
            prefix: "deberta", embedding: "embeddings.word_embeddings", output: .none, attention: ["attention"],
            feedForward: ["intermediate", "output", "embed_proj", "pooler"], unquantized: []),
        tokenTypes: .embedded(key: "type_vocab_size", default: 0),
        adapterTargets: AdapterTargets(
            lora: .named(["query_proj", "value_proj"]),
            adaLoRA: .named(["query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"]),
            ia3: .named(["key_proj", "value_proj", "output.dense"]), ia3FeedForward: ["output.dense"],
            norms: ["LayerNorm"]),
        gguf: .none)
}
