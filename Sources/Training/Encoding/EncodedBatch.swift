import LanguageModels
import Torch

extension LanguageModel {
    /// A batch of encoded examples on the model's device. Tokens after an example's last token that contributes to the loss
    /// are left out.
    package func batch(_ examples: [EncodedExample]) -> TrainingBatch {
        let rows = examples.map { example -> TrainingRow in
            var row = example.row
            if example.loss != nil { row.target = Array(row.target.prefix(example.learnedLength)) }
            return row
        }
        let batch = batch(rows, device: device)
        guard examples.contains(where: { $0.loss != nil }), let positions = batch.positions else { return batch }
        let mask = examples.flatMap { $0.loss?.prefix($0.learnedLength) ?? $0.target.map { _ in true }[...] }
        let kept = Tensor(mask.indices.filter { mask[$0] }, device: device)
        return TrainingBatch(
            input: batch.input, decoder: batch.decoder, targets: batch.targets.selecting(kept),
            positions: positions.selecting(kept), outputs: batch.outputs.map { OutputSpans($0.spans, kept: kept) })
    }
}
