/// A pre-tokenizer and a model fused, without intermediate pieces.
protocol JointStages: Sendable {
    /// Appends the ids of normalized text.
    func encode(_ bytes: [UInt8], startsText: Bool, into ids: inout [Int])
}

/// The fused implementation of these stages, if there is one.
func jointStages(_ preTokenizer: (any PreTokenizer)?, _ model: any TokenizerModel) -> (any JointStages)? {
    ByteLevelEncoder(preTokenizer, model) ?? MetaspaceUnigram(preTokenizer, model)
}
