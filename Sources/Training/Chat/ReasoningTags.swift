/// Tags around a model's reasoning, such as `<think>`, `[THINK]` or `<|START_THINKING|>`.
enum ReasoningTags {
    /// Words that identify reasoning tags.
    private static let words = ["think", "thought", "reason", "analysis", "channel"]

    /// Byte ranges of such tags in a text.
    static func places(in text: [UInt8]) -> [Range<Int>] {
        var result: [Range<Int>] = []
        var start: Int?
        for (index, byte) in text.enumerated() {
            switch byte {
            case UInt8(ascii: "<"), UInt8(ascii: "["): start = index
            case UInt8(ascii: ">"), UInt8(ascii: "]"):
                guard let begin = start else { continue }
                start = nil
                let name = String(decoding: text[begin...index], as: UTF8.self).lowercased()
                if words.contains(where: { name.contains($0) }) { result.append(begin..<(index + 1)) }
            default: break
            }
        }
        return result
    }

    /// The tag that a generation prompt leaves open at its end, and the one that closes it.
    static func open(atEndOf prompt: [UInt8]) -> (tag: String, closing: String)? {
        guard let last = places(in: prompt).last,
            prompt[last.upperBound...].allSatisfy({ $0 == 0x0A || $0 == 0x20 })
        else { return nil }
        let tag = String(decoding: prompt[last], as: UTF8.self)
        guard let bracket = tag.first, tag.dropFirst().first?.isLetter == true else { return nil }
        return (tag, "\(bracket)/\(tag.dropFirst())")
    }
}
