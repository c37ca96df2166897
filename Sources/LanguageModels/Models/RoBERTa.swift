import PEFTSupport
import Torch
import TorchNN

/// RoBERTa (Liu et al. 2019) and other encoders with its classification head of two layers in place of the pooler.
package final class RoBERTa: Module, PretrainedEncoder {
    package let head: ModelHead
    let settings: BERTConfiguration
    let names: EncoderNames
    package var folderSettings = FolderSettings()
    @ModuleInfo var encoder: BERTEncoder
    @ModuleInfo(key: "classifier") var rowHead: RoBERTaHead?
    @ModuleInfo(key: "classifier") var tokenHead: Linear?

    init(_ settings: BERTConfiguration, head: ModelHead) {
        (self.settings, self.head) = (settings, head)
        names = EncoderNames(
            settings.family.modules,
            heads: [
                "classifier", "lm_head", "qa_outputs", "discriminator_predictions", "generator_predictions",
                "generator_lm_head",
            ], for: head.task)
        _encoder = ModuleInfo(
            wrappedValue: BERTEncoder(settings, hasPooler: head.task == .embeddings && settings.variant.pools),
            key: names.key)
        _rowHead.wrappedValue =
            head.task.scoresRows
            ? RoBERTaHead(settings, head.outputs) : nil
        _tokenHead.wrappedValue = head.task == .tokenClassification ? Linear(settings.size, head.outputs) : nil
    }

    package var outputLayer: String {
        head.task == .embeddings ? "" : head.task == .tokenClassification ? "classifier" : "classifier.out_proj"
    }
    package var positionLimit: Int? { settings.positionLimit }
    package var newModules: [String] { head.task == .embeddings ? [] : ["classifier"] }
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
    func rowScores(_ states: Tensor) -> Tensor { rowHead?(states) ?? states }
    func tokenScores(_ states: Tensor) -> Tensor {
        tokenHead?(dropout(states, settings.classifierDropout)) ?? states
    }
}

/// Two layers with tanh or another activation between them.
final class RoBERTaHead: Module {
    @ModuleInfo var dense: Linear
    @ModuleInfo(key: "out_proj") var output: Linear
    private let rate: Double
    private let activation: Activation?

    init(_ settings: BERTConfiguration, _ classes: Int) {
        (rate, activation) = (settings.classifierDropout, settings.variant.headActivation)
        _dense.wrappedValue = Linear(settings.size, settings.size)
        _output.wrappedValue = Linear(settings.size, classes)
    }

    /// `[rows, size]` -> `[rows, classes]`.
    func callAsFunction(_ x: Tensor) -> Tensor {
        let hidden = dense(dropout(x, rate))
        return output(dropout(activation?(hidden) ?? hidden.tanh(), rate))
    }
}

extension ModelFamily {
    static let roberta = ModelFamily(
        name: "roberta",
        constructor: .encoder { RoBERTa(try BERTConfiguration($0, .roberta, family: $1), head: $2) },
        modules: .bert(prefix: "roberta"), tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["query", "value"]),
            adaLoRA: .named(["query", "key", "value", "intermediate.dense", "output.dense"]),
            ia3: .named(["key", "value", "output.dense"]), ia3FeedForward: ["output.dense"], norms: ["LayerNorm"]),
        gguf: .none)
}

extension BERTVariant {
    static let roberta = BERTVariant(positions: .afterPadding, vocabularySize: 50265)
}
