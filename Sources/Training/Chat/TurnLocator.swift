import PEFTJinja
import PEFTSupport

/// Finds the assistant's turns in the rendering of a whole conversation.
///
/// A turn begins after the generation prompt and ends where the template ends it. With most templates the rendering of a
/// conversation begins with that of its first messages, so two prefixes delimit a turn. Templates of reasoning models
/// render the last turn differently from earlier ones. There a marker replaces the message: the text before and after
/// the turn must be the same bytes with and without the marker, otherwise the turn is rejected.
struct TurnLocator {
    /// A turn in the text.
    struct Turn {
        var span: Range<Int>
        /// The rest of the generation prompt that the rendering of the turn lacks.
        var missing: [UInt8] = []
        /// The text between the message and the end of the turn, if it was determined.
        var closing: [UInt8]?
    }

    /// Why a turn can't be located in the text.
    struct Failure: Error { let reason: String }

    private let renderer: ConversationRenderer
    private let whole: [UInt8]
    private let endToken: [UInt8]?
    private var messages: [JinjaValue] { renderer.conversation.messages }

    init(_ renderer: ConversationRenderer, whole: String) {
        (self.renderer, self.whole) = (renderer, Array(whole.utf8))
        endToken = renderer.template.specialTokens["eos_token"].map { Array($0.utf8) }
    }

    /// - Throws: ``Failure``.
    func turn(_ index: Int) throws -> Turn {
        if let span = byPrefixes(index), !hasTextBehindEnd(span) { return Turn(span: span) }
        return try byMark(index)
    }

    // MARK: By prefixes

    private func byPrefixes(_ index: Int) -> Range<Int>? {
        guard index > 0, let before = renderer.bytes(Array(messages[..<index]), prompts: true),
            whole.starts(with: before)
        else { return nil }
        if index + 1 == messages.count { return before.count..<whole.count }
        guard let through = renderer.bytes(Array(messages[...index])), let end = length(of: through, in: whole[...]),
            before.count <= end
        else { return nil }
        return before.count..<end
    }

    /// How far a text that ends here goes in one that goes on. Some templates close every text with an end token.
    private func length(of closed: [UInt8], in text: ArraySlice<UInt8>) -> Int? {
        if text.starts(with: closed) { return closed.count }
        guard let endToken, closed.ends(with: endToken) else { return nil }
        let open = closed.dropLast(endToken.count)
        return text.starts(with: open) ? open.count : nil
    }

    /// Whether something follows the end token, such as a generation prompt that a template always writes.
    private func hasTextBehindEnd(_ span: Range<Int>) -> Bool {
        guard let endToken, let end = Array(whole[span]).firstPlace(of: endToken) else { return false }
        let rest = whole[(span.lowerBound + end.upperBound)..<span.upperBound]
        return !rest.allSatisfy { $0 == 0x20 || 0x09...0x0D ~= $0 } && alwaysPrompts
    }

    // MARK: By a marker

    private func byMark(_ index: Int) throws -> Turn {
        guard let (marked, text, place) = self.marked(index) else {
            throw Failure(reason: "does not occur exactly once in the rendered text")
        }
        let behind = Array(text[place.upperBound...])
        if alwaysPrompts { return try endedByToken(index, behind) }
        guard let prompt = generationPrompt(index), !prompt.isEmpty else {
            throw Failure(reason: "has no generation prompt")
        }
        let (start, missing) = try self.start(index, marked, Array(text[..<place.lowerBound]), prompt)
        if index + 1 == messages.count {
            return Turn(span: start..<whole.count, missing: missing, closing: behind)
        }
        guard let through = renderer.bytes(Array(marked[...index])),
            let end = through.onlyPlace(of: MessageProbe.mark),
            let length = self.length(of: Array(through[end.upperBound...]), in: behind[...])
        else { throw Failure(reason: "ends differently when more turns follow") }
        return Turn(
            span: try self.span(from: start, before: behind[length...]), missing: missing,
            closing: Array(behind[..<length]))
    }

    /// The conversation with a message's text replaced by a marker, its rendering, and the marker's range in it.
    private func marked(_ index: Int) -> (messages: [JinjaValue], text: [UInt8], place: Range<Int>)? {
        for part in MessageProbe.Part.allCases {
            var copy = messages
            guard let message = MessageProbe.marked(copy[index], MessageProbe.mark, part) else { continue }
            copy[index] = message
            if let text = renderer.bytes(copy), let place = text.onlyPlace(of: MessageProbe.mark) {
                return (copy, text, place)
            }
        }
        return nil
    }

    /// Where generation begins: after as much of the generation prompt as the turn contains.
    /// - Parameter head: the text before the marker.
    private func start(_ index: Int, _ marked: [JinjaValue], _ head: [UInt8], _ prompt: [UInt8]) throws -> (
        start: Int, missing: [UInt8]
    ) {
        // Search the prompt after the text of the previous message.
        let first = head.count - between(index, marked, head).count
        var best = (place: first, length: -1)
        for place in first...head.count {
            let length = head.agreement(from: place, with: prompt)
            if length >= best.length { best = (place, length) }
        }
        guard whole.starts(with: head[..<best.place]) else {
            throw Failure(reason: "changes the text before it")
        }
        var length = whole.agreement(from: best.place, with: prompt)
        guard length < prompt.count else { return (best.place + length, []) }
        // Only reasoning that the prompt opens may be missing in a turn.
        let tags = ReasoningTags.places(in: prompt)
        guard let opening = tags.first, length >= opening.lowerBound else {
            throw Failure(reason: "does not begin with the generation prompt")
        }
        if let cut = tags.first(where: { $0.lowerBound < length && length < $0.upperBound }) {
            length = cut.lowerBound
        }
        return (best.place + length, Array(prompt[length...]))
    }

    /// The text between the previous message and the marker; all of the head if that is unknown.
    private func between(_ index: Int, _ marked: [JinjaValue], _ head: [UInt8]) -> [UInt8] {
        guard index > 0 else { return head }
        var copy = marked
        guard let before = MessageProbe.marked(copy[index - 1], MessageProbe.otherMark, .content) else { return head }
        copy[index - 1] = before
        guard let text = renderer.bytes(copy), let end = text.onlyPlace(of: MessageProbe.mark),
            let start = text.onlyPlace(of: MessageProbe.otherMark), start.upperBound <= end.lowerBound
        else { return head }
        let part = Array(text[start.upperBound..<end.lowerBound])
        return head.ends(with: part) ? part : head
    }

    private func span(from start: Int, before rest: ArraySlice<UInt8>) throws -> Range<Int> {
        guard whole.ends(with: rest), start <= whole.count - rest.count else {
            throw Failure(reason: "changes the text after it")
        }
        return start..<(whole.count - rest.count)
    }

    // MARK: Generation prompts

    /// A user message for conversations that probe the template.
    private static var question: [JinjaValue] { [Conversation.message("user", "x")] }

    /// The generation prompt of a template; `nil` if it can't be determined.
    private func generationPrompt(_ index: Int) -> [UInt8]? {
        for before in [Array(messages[..<index]), Self.question] where !before.isEmpty {
            guard let prompt = renderer.bytes(before, prompts: true), let closed = renderer.bytes(before),
                let length = self.length(of: closed, in: prompt[...])
            else { continue }
            return Array(prompt[length...])
        }
        return nil
    }

    /// Whether the template always writes the generation prompt, or has none.
    private var alwaysPrompts: Bool {
        guard let prompt = renderer.bytes(Self.question, prompts: true) else { return false }
        return renderer.bytes(Self.question) == prompt
    }

    /// The turn of such a template: from the text of the messages before to the end token.
    private func endedByToken(_ index: Int, _ behind: [UInt8]) throws -> Turn {
        guard let before = renderer.bytes(Array(messages[..<index]), prompts: true), whole.starts(with: before) else {
            throw Failure(reason: "does not begin with the generation prompt")
        }
        guard let endToken, let end = behind.firstPlace(of: endToken) else {
            throw Failure(reason: "has no end token")
        }
        return Turn(
            span: try self.span(from: before.count, before: behind[end.upperBound...]),
            closing: Array(behind[..<end.upperBound]))
    }
}
