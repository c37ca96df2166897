import PEFTSupport
import Torch
import TorchNN

/// An encoder with a head over whole sequences or single tokens.
protocol EncoderModel: LanguageModel {
    var inputSite: InputSite { get }
    /// The prefix site of each layer.
    var prefixSites: [KeyValueSite] { get }
    /// Whether attention is causal, so that the last token represents the sequence.
    var isCausal: Bool { get }
    /// Which states a sequence's scores are computed from: the first token's, or the mean.
    var rowPooling: Pooling.Mode { get }
    /// Token embeddings, before positions and types: `[tokens]` -> `[tokens, size]`.
    func embed(_ ids: Tensor) -> Tensor
    /// The layers over embedded tokens `[tokens, size]` -> `[tokens, size]`.
    /// - Parameter types: token type ids, int64 `[tokens]`; `nil` if all are 0.
    func encode(_ x: Tensor, types: Tensor?, _ context: AttentionContext) -> Tensor
    /// The sequence head: `[rows, size]` -> `[rows, labels]`.
    func rowScores(_ states: Tensor) -> Tensor
    /// The token head: `[tokens, size]` -> `[tokens, labels]`.
    func tokenScores(_ states: Tensor) -> Tensor
}

extension EncoderModel {
    var isCausal: Bool { false }
    var rowPooling: Pooling.Mode { .cls }
    package var architecture: Architecture { .encoder }
    package var aliases: [String: String] { [:] }
    package var generationDefaults: GenerationDefaults {
        GenerationDefaults(startToken: nil, endTokens: [], padToken: 0)
    }

    package func startDecoding(_ prompts: PackedSequences, capacity: Int, beams: Int) -> any DecodingState {
        NoDecoding()
    }

    package func virtualTokens(forRows rows: Int) -> [Int] {
        LanguageModels.virtualTokens(inputSite, prefixSites.first, forRows: rows)
    }

    // MARK: Rows

    package func batch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch {
        batch(rows.map { TrainingRow(input: $0.input, target: $0.target) }, device: device)
    }

    package func batch(_ rows: [TrainingRow], device: Device) -> TrainingBatch {
        // Embedding candidates follow all inputs: the first one of every example, then the second ones.
        let depth = rows.map(\.candidates.count).max() ?? 0
        let candidates = (0..<depth).flatMap { place in
            rows.compactMap { $0.candidates.indices.contains(place) ? $0.candidates[place] : nil }
        }
        var positions: Tensor?
        if head.task == .tokenClassification { positions = Tensor(labeled(rows), device: device) }
        let segments = rows.flatMap { row in
            row.segments.isEmpty ? Array(repeating: 0, count: row.input.count) : row.segments
        }
        return TrainingBatch(
            input: PackedSequences(rows.map(\.input) + candidates, device: device), decoder: nil,
            targets: headTargets(rows, device: device), positions: positions,
            segments: segments.contains { $0 != 0 } ? segments : nil)
    }

    /// Indices of the labeled tokens among the packed tokens.
    private func labeled(_ rows: [TrainingRow]) -> [Int] {
        var start = 0
        return rows.flatMap { row -> [Int] in
            defer { start += row.input.count }
            return zip(row.input.indices, row.target).filter { $1 >= 0 }.map { start + $0.0 }
        }
    }

    /// Classes, values or flags of the examples, as the head's loss reads them.
    func headTargets(_ rows: [TrainingRow], device: Device) -> Tensor {
        switch head.task {
        case .regression:
            let numbers = rows.map { Float($0.score ?? Double($0.target.first ?? 0)) }
            return Tensor(numbers, device: device)
        case .multiLabel:
            let flags = rows.flatMap { row in head.labels.indices.map { Float(row.target.contains($0) ? 1 : 0) } }
            return Tensor(flags, shape: [rows.count, head.outputs], device: device)
        case .tokenClassification:
            return Tensor(rows.flatMap { zip($0.input, $0.target).map(\.1).filter { $0 >= 0 } }, device: device)
        case .embeddings:
            let scores = rows.compactMap(\.score)
            guard scores.count < rows.count else { return Tensor(scores.map(Float.init), device: device) }
            return Tensor(Array(rows.indices), device: device)
        default: return Tensor(rows.compactMap(\.target.first), device: device)
        }
    }

    // MARK: Outputs

    /// Logits of the sequences or labeled tokens, `[targets, labels]`; for embeddings the vectors of all texts.
    package func logits(_ batch: TrainingBatch) -> Tensor {
        let (states, rows, areRows) = read(batch)
        switch head.task {
        case .tokenClassification:
            let own = rows.withoutPrompts(states)
            let selected = batch.positions.map { own.selecting($0) } ?? own
            guard RowRouting.current != nil, let positions = batch.positions else { return tokenScores(selected) }
            // Mixed-adapter batches route the classification head too.
            let all = RowRouting.within(batch.input.offsets) { tokenScores(own) }
            return all.selecting(positions)
        case .embeddings:
            return head.pooling(
                rows.withoutPrompts(states), offsets: batch.input.offsets, denses: folderSettings.denses)
        default:
            let chosen =
                areRows
                ? states
                : rowPooling == .mean
                    ? Pooling(.mean, normalizes: false)(states, offsets: rows.offsets)
                    : states.selecting(Tensor(speakers(rows), device: states.device))
            return RowRouting.within(single: batch.input.rows) { rowScores(chosen) }
        }
    }

    /// Indices of the tokens that represent their sequences: the first position of each, [CLS] or the first virtual
    /// token of a soft prompt; the last one in a causal model.
    private func speakers(_ rows: PromptedRows) -> [Int] {
        isCausal ? rows.offsets.dropFirst().map { $0 - 1 } : Array(rows.offsets.dropLast())
    }

    /// Runs packed sequences through the layers: states `[tokens, size]`, including virtual tokens, or only `[rows,
    /// size]` of the tokens that represent their sequences (`areRows`) if no others are read.
    private func read(_ batch: TrainingBatch) -> (states: Tensor, rows: PromptedRows, areRows: Bool) {
        let input = checked(batch.input)
        let embedded = RowRouting.within(input.offsets) { embed(input.ids) }
        let rows = inputSite(EmbeddingNoise.added(to: embedded, offsets: input.offsets), offsets: input.offsets)
        let prefixes = (prefixSites.first?.prefixes(forRows: input.rows) ?? []).map { $0?.keys.dim(0) ?? 0 }
        let isOfTokens = head.task == .tokenClassification || head.task == .embeddings
        let selected =
            isOfTokens || rowPooling == .mean || !UnreadOutputs.areLeftOut
            ? nil : SelectedTokens(ranges: speakers(rows).map { $0..<($0 + 1) }, device: rows.states.device)
        let context = PackedContext(
            rows, prefixes: prefixes.isEmpty ? rows.prompts.map { _ in 0 } : prefixes, isCausal: isCausal,
            selected: selected, limit: positionLimit)
        if !rows.prompts.contains(where: { $0 > 0 }) { context.ids = input.ids }
        let types = batch.segments.map { segments -> Tensor in
            // Virtual tokens have type 0.
            let all = rows.prompts.indices.flatMap { row in
                Array(repeating: 0, count: rows.prompts[row]) + segments[input.offsets[row]..<input.offsets[row + 1]]
            }
            return Tensor(all, device: rows.states.device)
        }
        return (RowRouting.within(rows.offsets) { encode(rows.states, types: types, context) }, rows, selected != nil)
    }

    // MARK: Losses

    /// Sum over the targets of the loss, of which transformers takes the mean: −log p(label) of a sequence or token,
    /// binary cross-entropy of a label, squared error of a number; for embeddings see ``EmbeddingLoss``.
    package func lossSum(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor {
        let outputs = logits(batch)
        switch head.task {
        case .multiLabel:
            // −y log σ(x) − (1 − y) log(1 − σ(x)) without overflow.
            let softplus = ((-outputs.abs()).exp() + 1).log()
            return (outputs.atLeast(0) - outputs * batch.targets.to(outputs.dtype) + softplus).sum()
        case .regression: return (outputs.reshaped(-1) - batch.targets.to(outputs.dtype)).squared().sum()
        case .embeddings: return EmbeddingLoss.sum(outputs, batch.targets)
        default: return crossEntropySum(outputs, batch.targets, labelSmoothing: labelSmoothing)
        }
    }
}

/// Sum over rows of −log softmax(scores)[target] with scores `[rows, classes]`, targets int64 `[rows]`.
func crossEntropySum(_ scores: Tensor, _ targets: Tensor, labelSmoothing: Double) -> Tensor {
    let logs = scores.logSoftmax()
    let targetLoss = logs.gathering(axis: 1, targets.unsqueezed(1)).sum() * (labelSmoothing - 1)
    return labelSmoothing > 0 ? targetLoss - logs.mean(axes: [-1]).sum() * labelSmoothing : targetLoss
}

/// Contrastive and similarity losses of sentence embeddings.
enum EmbeddingLoss {
    /// Inverse temperature, sentence-transformers' `scale`.
    static let scale = 20.0

    /// The first n vectors are the texts, n being the number of targets, the others the candidates: every text's
    /// positive, then hard negatives. Texts without candidates are their own (SimCSE, Gao et al. 2021, with two
    /// dropout masks).
    ///
    /// With integer targets it is the sum over texts of −log softmax(20 · cos(text, candidates))[positive], with the
    /// other texts' candidates as negatives (InfoNCE, van den Oord et al. 2018; `MultipleNegativesRankingLoss`). With
    /// floating-point targets it is the sum of (cos(text, positive) − target)² (`CosineSimilarityLoss`).
    static func sum(_ vectors: Tensor, _ targets: Tensor) -> Tensor {
        let rows = targets.count
        let unit = vectors.normalized()
        let texts = unit.narrowed(axis: 0, 0..<rows)
        let candidates = unit.dim(0) > rows ? unit.narrowed(axis: 0, rows..<unit.dim(0)) : texts
        guard targets.dtype.isFloatingPoint else {
            return crossEntropySum(texts.matmul(candidates.T) * scale, targets, labelSmoothing: 0)
        }
        let own = candidates.narrowed(axis: 0, 0..<rows)
        return ((texts * own).sum(axes: [-1]) - targets.to(unit.dtype)).squared().sum()
    }
}

/// A placeholder for models that don't generate; the generator rejects encoders before it is used.
final class NoDecoding: DecodingState {
    func step(_ tokens: Tensor) -> Tensor { tokens }
    func reorder(_ sources: Tensor) {}
    func keep(rows: [Int]) {}
}
