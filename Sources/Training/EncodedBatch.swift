import LanguageModels
import Torch

extension LanguageModel {
    /// A batch of encoded rows, on the model's device. What follows a row's last token with loss is left out: nothing
    /// learns from it.
    public func batch(_ examples: [EncodedExample]) -> TrainingBatch {
        let rows = examples.map { (input: $0.input, target: Array($0.target.prefix($0.learnedLength))) }
        let batch = batch(rows, device: device)
        guard let positions = batch.positions, examples.contains(where: { $0.loss != nil }) else { return batch }
        let mask = examples.flatMap { $0.loss?.prefix($0.learnedLength) ?? $0.target.map { _ in true }[...] }
        let kept = Tensor(mask.indices.filter { mask[$0] }, device: device)
        return TrainingBatch(
            input: batch.input, decoder: batch.decoder, targets: batch.targets.selecting(kept),
            positions: positions.selecting(kept))
    }
}
