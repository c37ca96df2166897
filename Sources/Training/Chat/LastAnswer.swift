import PEFTJinja

/// The text that follows a generation prompt that opens reasoning.
enum LastAnswer {
    /// The reasoning, the tag that closes it, and the answer.
    /// - Parameters:
    ///   - tag: what the prompt opens, and what closes it.
    ///   - endsLine: whether the prompt has a line break behind its tag.
    /// - Returns: `nil` for a message without reasoning.
    static func withReasoning(_ message: JinjaValue, _ tag: (tag: String, closing: String), endsLine: Bool) -> String?
    {
        guard let fields = message.dictionary, let content = fields["content"]?.text else { return nil }
        if content.contains(tag.closing) {
            guard let place = content.firstRange(of: tag.tag),
                content[..<place.lowerBound].allSatisfy(\.isWhitespace)
            else { return content }
            let rest = content[place.upperBound...]
            return String(endsLine ? rest.drop { $0.isNewline } : rest)
        }
        let reasoning = ["reasoning_content", "thinking", "reasoning"].lazy.compactMap { fields[$0]?.text }.first
        guard let reasoning, !reasoning.isEmpty else { return nil }
        return "\(reasoning)\n\(tag.closing)\n\n\(content)"
    }
}
