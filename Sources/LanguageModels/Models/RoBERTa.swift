import PEFTSupport
import Torch
import TorchNN

/// RoBERTa (Liu et al. 2019) and ``ModelFamily/xlmRoBERTa``: BERT's encoder with positions that start after
/// the padding id, and its own classification head instead of the pooler.
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
        names = EncoderNames(settings.family.modules, heads: ["classifier", "lm_head", "qa_outputs"], for: head.task)
        _encoder = ModuleInfo(
            wrappedValue: BERTEncoder(settings, hasPooler: head.task == .embeddings), key: names.key)
        _rowHead.wrappedValue =
            head.task.scoresRows
            ? RoBERTaHead(settings.size, head.outputs, dropout: settings.classifierDropout) : nil
        _tokenHead.wrappedValue = head.task == .tokenClassification ? Linear(settings.size, head.outputs) : nil
    }

    package var outputLayer: String {
        head.task == .embeddings ? "" : head.task == .tokenClassification ? "classifier" : "classifier.out_proj"
    }
    package var positionLimit: Int? { settings.positions - settings.firstPosition }
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

/// Two layers with a tanh between them.
final class RoBERTaHead: Module {
    @ModuleInfo var dense: Linear
    @ModuleInfo(key: "out_proj") var output: Linear
    private let rate: Double

    init(_ size: Int, _ classes: Int, dropout rate: Double) {
        self.rate = rate
        _dense.wrappedValue = Linear(size, size)
        _output.wrappedValue = Linear(size, classes)
    }

    /// `[rows, size]` -> `[rows, classes]`.
    func callAsFunction(_ x: Tensor) -> Tensor {
        output(dropout(dense(dropout(x, rate)).tanh(), rate))
    }
}

extension ModelFamily {
    static let roberta = ModelFamily(
        name: "roberta",
        constructor: .encoder { RoBERTa(try BERTConfiguration($0, isRoBERTa: true, family: $1), head: $2) },
        modules: .bert(prefix: "roberta"), tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["query", "value"]),
            adaLoRA: .named(["query", "key", "value", "intermediate.dense", "output.dense"]),
            ia3: .named(["key", "value", "output.dense"]), ia3FeedForward: ["output.dense"], norms: ["LayerNorm"]),
        gguf: .none)
}
