extension LanguageModel {
    /// Why the loss of a batch is not the sum of its examples' losses; `nil` if it is. Such a batch can't be divided among
    /// processes.
    package func interaction(in batch: TrainingBatch) -> String? {
        if head.task == .embeddings, !batch.targets.dtype.isFloatingPoint {
            return "a contrastive loss compares all examples of a micro-batch"
        }
        if let model = self as? any CausalModel, model.routerLoss != nil {
            return "the routers' loss is a function of all tokens of a micro-batch"
        }
        return nil
    }
}
