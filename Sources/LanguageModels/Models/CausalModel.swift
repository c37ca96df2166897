import PEFTSupport
import Torch
import TorchNN

/// A decoder-only model, as generation and training use it.
///
/// A family gives its modules, ``embed(_:)`` and ``decode(_:_:)``; all else follows from them and from `config.json`.
protocol CausalModel: TiedOutputModel {
    associatedtype Settings: CausalConfiguration
    var settings: Settings { get }
    var embedding: Embedding { get }
    var inputSite: InputSite { get }
    /// The prefix site of each layer.
    var prefixSites: [KeyValueSite] { get }
    /// Token embeddings, before positions: `[tokens]` -> `[tokens, size]`.
    func embed(_ ids: Tensor) -> Tensor
    /// The layers and the final norm: embedded tokens `[tokens, size]` -> hidden states `[tokens, size]`.
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor
    /// Factor of the logits.
    var outputScale: Double { get }
    /// c of the logit softcap: s becomes c · tanh(s / c).
    var outputSoftcap: Double? { get }
    /// The sequence length from which RoPE frequencies differ, so that the KV cache is recomputed.
    var rereadLength: Int? { get }
    /// Whether the output layer has a bias if it is untied.
    var untiedOutputHasBias: Bool { get }
    /// Linear biases of the attention scores (ALiBi) in place of position embeddings.
    var linearBiases: LinearBiases? { get }
    /// The routers' loss that training adds, if the model has experts and `config.json` asks for it.
    var routerLoss: RouterLoss? { get }
    /// Whether other tables have a vector of each token, too, so that tokens can't be added.
    var hasFixedVocabulary: Bool { get }
}

/// What all decoder-only models read from `config.json`.
protocol CausalConfiguration: Sendable {
    var family: ModelFamily { get }
    /// Whether the output layer is tied to the embedding.
    var isTied: Bool { get }
    var endTokens: [Int] { get }
    var json: JSON { get }
}

extension CausalModel {
    package var modelFamily: ModelFamily { settings.family }
    package var architecture: Architecture { .decoder }
    package var configuration: JSON { settings.json }
    package var outputLayer: String { modelFamily.modules.output.path ?? "" }
    package var inputEmbedding: String { modelFamily.modules.inputEmbedding }
    package var vocabularySize: Int { embedding.entries }
    package var aliases: [String: String] {
        settings.isTied ? [outputLayer + ".weight": inputEmbedding + ".weight"] : [:]
    }
    package var generationDefaults: GenerationDefaults {
        GenerationDefaults(
            startToken: nil, endTokens: Set(settings.endTokens), padToken: settings.endTokens.first ?? 0)
    }
    package func canonicalName(_ name: String) -> String {
        let name = modelFamily.modules.canonical(name)
        return aliases[name] ?? name
    }
    package func isIgnorable(_ name: String) -> Bool {
        name.hasSuffix("rotary_emb.inv_freq") || modelFamily.modules.otherPart(name) != nil
    }
    package func virtualTokens(forRows rows: Int) -> [Int] {
        LanguageModels.virtualTokens(inputSite, prefixSites.first, forRows: rows)
    }

    var outputScale: Double { 1 }
    var outputSoftcap: Double? { nil }
    var rereadLength: Int? { nil }
    var untiedOutputHasBias: Bool { false }
    var linearBiases: LinearBiases? { nil }
    var routerLoss: RouterLoss? { nil }
    var hasFixedVocabulary: Bool { false }
    func embed(_ ids: Tensor) -> Tensor { embedding(ids) }

    /// Hidden states `[tokens, size]` -> logits `[tokens, vocabulary]`.
    func scores(_ hidden: Tensor) -> Tensor {
        let projected = outputMatrix(embedding).gathered {
            outputProjection?(hidden) ?? embedding.outputWeight.project(hidden, bias: nil)
        }
        let scores = outputScale == 1 ? projected : projected * outputScale
        return outputSoftcap.map { (scores / $0).tanh() * $0 } ?? scores
    }

    /// The output layer's weight, if nothing but the factor and the softcap acts on the logits.
    private var outputWeight: (any LinearWeight)? {
        guard let outputProjection else { return embedding.outputWeight }
        return outputProjection.isAdapted ? nil : outputProjection.weight
    }

    package func batch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch {
        // The routers' loss counts the last token, too, as in transformers.
        let extra = routerLoss == nil ? 0 : 1
        let input = PackedSequences(rows.map { $0.input + $0.target.dropLast(1 - extra) }, device: device)
        // The last token of the prompt predicts the first of the target, and so on.
        let spans = zip(rows, input.offsets.dropFirst()).map { row, end in
            (end - extra - row.target.count)..<(end - extra)
        }
        return TrainingBatch(
            input: input, decoder: nil, targets: Tensor(rows.flatMap(\.target), device: device),
            positions: Tensor(spans.flatMap { Array($0) }, device: device),
            outputs: routerLoss == nil ? OutputSpans(spans) : nil)
    }

    package func lossSum(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor {
        guard let routerLoss, areGradientsEnabled else {
            return lossSum(hidden(batch), targets: batch.targets, labelSmoothing: labelSmoothing)
        }
        let record = RouterRecord()
        let hidden = hidden(batch, record: record)
        let sum = lossSum(hidden, targets: batch.targets, labelSmoothing: labelSmoothing)
        // transformers adds it to the mean loss of the tokens.
        return routerLoss(record.read()).map { sum + $0 * Double(batch.targetCount) } ?? sum
    }

    private func lossSum(_ hidden: Tensor, targets: Tensor, labelSmoothing: Double) -> Tensor {
        if let weight = outputWeight {
            // The gradient w.r.t. the hidden states is computed with the loss.
            return outputMatrix(embedding).gathered(inBackward: false) {
                weight.crossEntropy(
                    hidden: hidden, bias: outputProjection?.bias?.tensor, targets: targets, scale: outputScale,
                    softcap: outputSoftcap, labelSmoothing: labelSmoothing)
            }
        }
        let logs = scores(hidden).logSoftmax()
        let targetLoss = logs.gathering(axis: 1, targets.unsqueezed(1)).sum() * (labelSmoothing - 1)
        return labelSmoothing > 0 ? targetLoss - logs.mean(axes: [-1]).sum() * labelSmoothing : targetLoss
    }

    package func logits(_ batch: TrainingBatch) -> Tensor { scores(hidden(batch)) }

    package func startDecoding(_ prompts: PackedSequences, capacity: Int, beams: Int) -> any DecodingState {
        CausalDecodingState(self, prompts, capacity: capacity, beams: beams)
    }

    /// Hidden states of the positions that contribute to the loss, `[targets, size]`.
    private func hidden(_ batch: TrainingBatch, record: RouterRecord? = nil) -> Tensor {
        let (states, rows, context) = read(
            batch.input, keeps: false, outputs: batch.outputs?.spans, record: record)
        if let outputs = batch.outputs, context.leavesOut {
            return outputs.kept.map { states.selecting($0) } ?? states
        }
        let own = rows.withoutPrompts(states)
        return batch.positions.map { own.selecting($0) } ?? own
    }

    /// Runs packed sequences through the layers: `[tokens, size]`, including virtual tokens; or only the tokens of
    /// `outputs`, which are trailing in each sequence, if ``UnreadOutputs`` may be skipped.
    func read(
        _ input: PackedSequences, keeps: Bool, longest: Int = 0, outputs: [Range<Int>]? = nil,
        record: RouterRecord? = nil
    ) -> (states: Tensor, rows: PromptedRows, context: PackedContext) {
        let input = checked(input)
        let embedded = RowRouting.within(input.offsets) { embed(input.ids) }
        let rows = inputSite(EmbeddingNoise.added(to: embedded, offsets: input.offsets), offsets: input.offsets)
        let prefixes = (prefixSites.first?.prefixes(forRows: input.rows) ?? []).map { $0?.keys.dim(0) ?? 0 }
        let context = PackedContext(
            rows, texts: input, prefixes: prefixes.isEmpty ? rows.prompts.map { _ in 0 } : prefixes, isCausal: true,
            keeps: keeps,
            longest: longest, selected: outputs.flatMap { SelectedTokens(rows, of: input.offsets, spans: $0) },
            limit: positionLimit, biases: linearBiases)
        context.routerRecord = record
        if !rows.prompts.contains(where: { $0 > 0 }) { context.ids = input.ids }
        let states = RowRouting.within(rows.offsets) { decode(rows.states, context) }
        return (states, rows, context)
    }
}
