import LanguageModels
import PEFTSupport
import Torch

/// Text embeddings. Contrastive training (InfoNCE) pulls a text toward its `--pair` and away from the pairs of other
/// examples in the batch and from its `--negative`; if there are targets, the cosine similarity is regressed to them.
struct EmbeddingTask: HeadTask {
    func encode(_ example: Example, _ texts: TextEncoder, needsTarget: Bool) throws -> (
        row: TrainingRow, isTruncated: Bool
    ) {
        let encoded = try [example.prompt, example.pair, example.negative].compactMap { $0 }.map { text in
            let one = texts.encode(text)
            guard !one.ids.isEmpty else {
                throw PEFTError("\(example.row): a text has no tokens", remedy: "fill in the text or remove the row")
            }
            return one
        }
        if needsTarget, example.pair == nil {
            throw PEFTError(
                "embeddings are trained and evaluated on pairs of texts, but --pair is missing",
                remedy: "name the text that matches the prompt, such as --pair '{answer}'")
        }
        var row = TrainingRow(input: encoded[0].ids, candidates: encoded.dropFirst().map(\.ids))
        if needsTarget, !example.target.isEmpty { row.score = try RegressionTask.number(example) }
        return (row, encoded.contains(where: \.isTruncated))
    }

    func read(_ outputs: Tensor, rows: [TrainingRow]) throws -> [Prediction] {
        let values = outputs.to(.float32).array(Float.self)
        try checkTorchErrors()
        let size = values.count / max(1, rows.count)
        return rows.indices.map { .vector(Array(values[($0 * size)..<(($0 + 1) * size)]), candidates: []) }
    }

    /// Encodes each distinct text once.
    func predict(
        _ rows: [TrainingRow], with model: any LanguageModel, batchSize: Int, onProgress: (Int) -> Void
    ) throws -> [Prediction] {
        var places: [[Int]: Int] = [:]
        var texts: [[Int]] = []
        for text in rows.flatMap({ [$0.input] + $0.candidates }) where places[text] == nil {
            places[text] = texts.count
            texts.append(text)
        }
        let vectors = try Self.inBatches(
            texts.map(\.count), batchSize: batchSize, onProgress: { onProgress($0 * rows.count / texts.count) }
        ) { part in
            let own = part.map { TrainingRow(input: texts[$0]) }
            let outputs = withoutGradients {
                model.computing { model.logits(model.batch(own, device: model.device)) }.to(.float32)
            }
            try model.requireFinite(logits: outputs, what: "vectors")
            return try read(outputs, rows: own)
        }
        func vector(_ text: [Int]) -> [Float] {
            if let place = places[text], case .vector(let vector, _) = vectors[place] { return vector }
            return []
        }
        return rows.map { .vector(vector($0.input), candidates: $0.candidates.map(vector)) }
    }

    func metrics(_ predictions: [Prediction], of examples: [Example]) throws -> [String: MetricValue] {
        let pairs = predictions.compactMap { prediction -> (text: [Float], pair: [Float])? in
            if case .vector(let text, let candidates) = prediction, let pair = candidates.first {
                (text, pair)
            } else {
                nil
            }
        }
        if examples.contains(where: { !$0.target.isEmpty }) {
            return try evaluateSimilarity(
                pairs.map { cosine($0.text, $0.pair) }, references: examples.map(RegressionTask.number))
        }
        return try evaluateRetrieval(
            queries: pairs.map(\.text), documents: pairs.map(\.pair), names: examples.map { $0.pair ?? "" })
    }
}

/// Cosine similarity of two vectors of equal length; 0 if one is zero.
func cosine(_ a: [Float], _ b: [Float]) -> Double {
    var (product, first, second) = (0.0, 0.0, 0.0)
    for (x, y) in zip(a, b) {
        product += Double(x) * Double(y)
        first += Double(x) * Double(x)
        second += Double(y) * Double(y)
    }
    let lengths = (first * second).squareRoot()
    return lengths > 0 ? product / lengths : 0
}
