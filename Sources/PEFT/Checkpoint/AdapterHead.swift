import LanguageModels
import PEFTSupport

extension AdapterFolder {
    /// The head that the adapter was trained with, inferred from its `task_type` and tensor shapes; `nil` for
    /// generative models and for files that don't say.
    ///
    /// Hugging Face's files contain no label names: the base model's are used if their number matches, else
    /// transformers' `LABEL_0` and so on.
    public func head(on base: ModelFolder) -> ModelHead? {
        let stored = ModelHead(configuration: base.configuration)
        let outputs = ["classifier.weight", "classifier.out_proj.weight", "score.weight"].lazy.compactMap { name in
            self.tensors.entries.first { $0.key.hasSuffix("." + name) }?.value.shape.first
        }.first
        let labels =
            stored.map(\.labels).flatMap { $0.count == outputs ? $0 : nil }
            ?? (0..<(outputs ?? 2)).map { "LABEL_\($0)" }
        switch configuration["task_type"]?.string {
        case "SEQ_CLS":
            if let stored, stored.task.scoresRows, stored.labels.count == outputs || stored.task == .regression {
                return stored
            }
            return ModelHead(task: outputs == 1 ? .regression : .classification, labels: outputs == 1 ? [] : labels)
        case "TOKEN_CLS": return ModelHead(task: .tokenClassification, labels: labels)
        case "FEATURE_EXTRACTION": return ModelHead(task: .embeddings, pooling: base.pooling ?? Pooling())
        default: return nil
        }
    }
}
