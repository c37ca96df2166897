import PEFTSupport
import Torch
import TorchNN

/// A BART or mBART with a classification head: transformers' `BartForSequenceClassification`. The decoder reads the encoder's
/// input, shifted right; its last state at an end token represents the text.
final class BARTClassifier: Module, EncoderModel {
    let head: ModelHead
    let configuration: JSON
    var folderSettings = FolderSettings()
    private let base: BART
    @ModuleInfo(key: "") var module: Module
    @ModuleInfo(key: BARTClassifier.headName) var rowHead: BARTHead

    private static let headName = "classification_head"

    init(_ settings: BARTConfiguration, head: ModelHead, configuration: JSON) {
        (self.head, self.configuration) = (head, configuration)
        base = BART(settings, hasLogitsBias: false)
        _module.wrappedValue = base
        _rowHead.wrappedValue = BARTHead(settings, head.outputs)
    }

    var modelFamily: ModelFamily { base.modelFamily }
    var architecture: Architecture { .encoderDecoder }
    var outputLayer: String { Self.headName + ".out_proj" }
    var inputEmbedding: String { base.inputEmbedding }
    var vocabularySize: Int { base.vocabularySize }
    var positionLimit: Int? { base.positionLimit }
    var newModules: [String] { [Self.headName] }
    var aliases: [String: String] { base.aliases.filter { $0.key != base.outputLayer + ".weight" } }
    var embeddingScale: Double { base.embeddingScale }
    func canonicalName(_ name: String) -> String {
        name.hasPrefix(Self.headName + ".") ? name : base.canonicalName(name)
    }
    func isIgnorable(_ name: String) -> Bool { base.isIgnorable(name) || modelFamily.modules.output.contains(name) }
    func initialDeviation(of path: String) -> Double? {
        guard path.hasPrefix(Self.headName + ".") else { return base.initialDeviation(of: path) }
        return path.hasSuffix(".bias") ? 0 : 0.02
    }
    func virtualTokens(forRows rows: Int) -> [Int] { base.virtualTokens(forRows: rows) }

    func batch(_ rows: [TrainingRow], device: Device) -> TrainingBatch {
        let decoder = rows.map { row -> [Int] in
            let last = base.settings.startsWithLastToken ? row.input.last : nil
            return [last ?? base.settings.startToken] + row.input.dropLast()
        }
        return TrainingBatch(
            input: PackedSequences(rows.map(\.input), device: device),
            decoder: PackedSequences(decoder, device: device), targets: headTargets(rows, device: device))
    }

    /// Logits of the texts, `[rows, labels]`.
    func logits(_ batch: TrainingBatch) -> Tensor {
        let states = base.hidden(batch)
        let chosen = states.selecting(Tensor(speakers(batch.input), device: states.device))
        return RowRouting.within(single: batch.input.rows) { rowHead(chosen) }
    }

    /// The index of the last end token of each text.
    private func speakers(_ input: PackedSequences) -> [Int] {
        // The meta device has no ids.
        let ids = input.ids.device == .meta ? nil : input.ids.array(Int.self)
        return (0..<input.rows).map { row in
            let tokens = input.offsets[row]..<input.offsets[row + 1]
            guard let ids else { return tokens.upperBound - 1 }
            if let place = tokens.last(where: { base.settings.endTokens.contains(ids[$0]) }) { return place }
            reportFailure(
                PEFTError(
                    "a text has no end token (\(base.settings.endTokens.map(String.init).joined(separator: ", "))),"
                        + " whose state the \(family) classifier reads",
                    remedy: "use the model's tokenizer, or shorten the text"))
            return tokens.upperBound - 1
        }
    }

    // The encoder's sites, of which the adapters' virtual tokens are counted.
    var inputSite: InputSite { base.encoder.input }
    var prefixSites: [KeyValueSite] { base.decoder.blocks.map(\.attention.prefix) }
    func embed(_ ids: Tensor) -> Tensor { base.embedding(ids) }
    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor { x }
    func rowScores(_ states: Tensor) -> Tensor { rowHead(states) }
    func tokenScores(_ states: Tensor) -> Tensor { states }
}

/// Two layers with tanh between them.
final class BARTHead: Module {
    @ModuleInfo var dense: Linear
    @ModuleInfo(key: "out_proj") var output: Linear
    private let rate: Double

    init(_ settings: BARTConfiguration, _ outputs: Int) {
        rate = settings.classifierDropout
        _dense.wrappedValue = Linear(settings.modelSize, settings.modelSize)
        _output.wrappedValue = Linear(settings.modelSize, outputs)
    }

    func callAsFunction(_ x: Tensor) -> Tensor { output(dropout(dense(dropout(x, rate)).tanh(), rate)) }
}
