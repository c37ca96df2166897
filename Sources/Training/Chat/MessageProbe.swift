import PEFTJinja

/// Markers that replace a message's text to find its position in a rendering: private-use characters, which no
/// template treats specially.
enum MessageProbe {
    static let mark = Array("\u{E0F1}\u{E0F2}".utf8)
    static let otherMark = Array("\u{E0F3}\u{E0F4}".utf8)

    /// The part of a message that a marker can replace.
    enum Part: CaseIterable {
        case content
        /// The first tool call's name, where a template leaves out the content of messages that call tools.
        case callName
    }

    /// The message with a part replaced by a marker; `nil` if it has no such part.
    static func marked(_ message: JinjaValue, _ mark: [UInt8], _ part: Part) -> JinjaValue? {
        guard var fields = message.dictionary else { return nil }
        let text = JinjaValue.string(String(decoding: mark, as: UTF8.self))
        switch part {
        case .content:
            let part = JinjaValue(fields: ["type": .string("text"), "text": text])
            fields["content"] = fields["content"]?.elements == nil ? text : JinjaValue.list([part])
        case .callName:
            guard var calls = fields["tool_calls"]?.elements, var call = calls.first?.dictionary else { return nil }
            if var function = call["function"]?.dictionary {
                function["name"] = text
                call["function"] = .dictionary(function)
            } else {
                call["name"] = text
            }
            calls[0] = .dictionary(call)
            fields["tool_calls"] = .list(calls)
        }
        return .dictionary(fields)
    }
}
