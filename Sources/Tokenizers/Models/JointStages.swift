/// A pre-tokenizer and a model that do their work in one go, without writing down the pieces between them.
protocol JointStages: Sendable {
    /// Appends the ids of normalized text.
    func encode(_ bytes: [UInt8], startsText: Bool, into ids: inout [Int])
}

/// These stages in one, where there is such a thing.
func jointStages(_ preTokenizer: (any PreTokenizer)?, _ model: any TokenizerModel) -> (any JointStages)? {
    ByteLevelEncoder(preTokenizer, model) ?? MetaspaceUnigram(preTokenizer, model)
}
