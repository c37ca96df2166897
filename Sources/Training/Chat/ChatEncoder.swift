import LanguageModels
import PEFTJinja
import PEFTSupport
import PEFTTokenizers

/// Encodes conversations to token ids and loss masks.
///
/// The template renders the whole conversation, special tokens included; none are added. A decoder-only model is trained
/// on the turns that ``ChatLoss`` selects, each with its end token; an encoder-decoder reads the conversation up to
/// the last assistant turn, which is its target.
public struct ChatEncoder: Sendable {
    package let tokenizer: Tokenizer
    package let template: ChatTemplate
    package let loss: ChatLoss
    /// Maximum number of tokens; longer conversations (for an encoder-decoder, prompts) are truncated.
    package let maxTokens: Int
    package let architecture: Architecture
    /// Template variables besides the messages, as JSON.
    private let variables: [String: JSON]

    /// - Throws: ``PEFTError`` for a model that doesn't generate text, or a limit below 2 tokens.
    package init(
        _ tokenizer: Tokenizer, _ template: ChatTemplate, for model: any LanguageModel, loss: ChatLoss = .assistant,
        maxTokens: Int, variables: [String: JSON] = [:]
    ) throws {
        guard model.architecture != .encoder else {
            throw PEFTError(
                "a \(model.family) model does not generate text", remedy: "use a generative model for chats")
        }
        guard maxTokens >= 2 else {
            throw PEFTError("the maximum length must be at least 2 tokens (got \(maxTokens))")
        }
        (self.tokenizer, self.template, self.loss) = (tokenizer, template, loss)
        self.maxTokens = min(maxTokens, model.positionRoom() ?? .max)
        (self.variables, architecture) = (variables, model.architecture)
    }

    private var values: [String: JinjaValue] { variables.mapValues { JinjaValue($0) } }

    /// - Returns: the examples with at least one token that contributes to the loss; the summary counts the others.
    /// - Throws: ``PEFTError`` naming the row whose turns can't be located, and if no token of the dataset contributes.
    package func encode(
        _ conversations: [Conversation]
    ) throws -> (examples: [EncodedExample], summary: EncodingSummary) {
        var summary = EncodingSummary()
        let examples = try conversations.compactMap { conversation -> EncodedExample? in
            let encoded = try withTokenizerErrors { try encode(conversation) }
            summary.unusedFields.formUnion(conversation.unusedFields)
            summary.truncated += encoded.isTruncated ? 1 : 0
            guard var example = encoded.example else {
                summary.dropped += 1
                return nil
            }
            example.location = conversation.row
            summary.openTurns += encoded.isOpen ? 1 : 0
            if let tag = encoded.missingTag {
                summary.turnsWithoutReasoning += 1
                summary.reasoningTag = tag
            }
            summary.add(example)
            return example
        }
        guard !examples.isEmpty || conversations.isEmpty else {
            throw PEFTError(
                "no token of \(counted(conversations.count, "example")) contributes to the loss",
                remedy: summary.truncated > 0
                    ? "raise --max-length" : "add assistant turns to the examples, or use --loss all")
        }
        return (examples, summary)
    }

    /// Token ids of a prompt for the assistant's next turn.
    package func prompt(_ messages: [JinjaValue], tools: JinjaValue? = nil, variables own: [String: JinjaValue] = [:])
        throws -> [Int]
    {
        func render(_ messages: [JinjaValue]) throws -> String {
            try template.render(
                messages, tools: tools, addGenerationPrompt: true, variables: values.merging(own) { _, own in own }
            ).text
        }
        let text = try withArguments(of: messages, render)
        return try withTokenizerErrors {
            architecture == .encoderDecoder ? closed(text) : tokenizer.encode(text: text, addSpecialTokens: false)
        }
    }

    /// The prompt for the assistant's last turn, and that turn's text.
    /// - Throws: ``PEFTError`` naming a row without an assistant turn.
    package func question(_ conversation: Conversation) throws -> (prompt: [Int], answer: String) {
        guard let turn = conversation.assistantTurns.last, let answer = conversation.lastAnswer else {
            throw PEFTError("\(conversation.row) has no assistant turn to evaluate against")
        }
        let ids = try prompt(
            Array(conversation.messages[..<turn]), tools: conversation.tools, variables: conversation.variables)
        return (ids, answer)
    }

    /// The token that ends an assistant turn, `nil` where the template has none.
    package var turnEnd: Int? {
        let turns = [Conversation.message("user", "a"), Conversation.message("assistant", "b")]
        let probe = Conversation(messages: turns, row: .init(file: "", number: 0))
        guard let example = try? encode(probe).example, example.learnedLength > 0 else { return nil }
        let last = example.target[example.learnedLength - 1]
        return tokenizer.isSpecial(last) ? last : nil
    }

    /// Runs `body` on messages; if the template fails, again with the arguments of tool calls as JSON text.
    private func withArguments<Result>(of messages: [JinjaValue], _ body: ([JinjaValue]) throws -> Result) throws
        -> Result
    {
        do { return try body(messages) } catch {
            guard let texts = ToolCalls.asText(messages), let result = try? body(texts) else { throw error }
            return result
        }
    }

    // MARK: One conversation

    private struct EncodedRow {
        var example: EncodedExample?
        var isTruncated = false
        /// Whether a turn has no end token.
        var isOpen = false
        /// The reasoning tag of the generation prompt, if the last turn lacks it.
        var missingTag: String?
    }

    private func encode(_ conversation: Conversation) throws -> EncodedRow {
        let isPair = architecture == .encoderDecoder
        let written = try withArguments(of: conversation.messages) { messages in
            var conversation = conversation
            conversation.messages = messages
            return try AssistantSpans(conversation, template, isPair ? .last : loss, values)
        }
        if isPair { return pair(written) }
        let ids = tokenizer.encode(text: written.text, addSpecialTokens: false)
        guard var mask = tokenizer.overlaps(with: written.spans, in: written.text, ids: ids) else {
            throw PEFTError(
                "\(conversation.row): its tokens can't be located in its text", remedy: "use --loss all")
        }
        var isOpen = false
        if loss != .all { isOpen = closeTurns(&mask, ids, cuts: !written.isByTemplate) }
        let kept = min(ids.count, maxTokens)
        let isTruncated = kept < ids.count
        // Nothing predicts the first token.
        guard let first = mask.indices.dropFirst().prefix(max(0, kept - 1)).first(where: { mask[$0] }) else {
            return EncodedRow(isTruncated: isTruncated, isOpen: isOpen)
        }
        let example = EncodedExample(
            input: Array(ids[..<first]), target: Array(ids[first..<kept]), loss: Array(mask[first..<kept]))
        return EncodedRow(
            example: example, isTruncated: isTruncated, isOpen: isOpen, missingTag: written.missingTag)
    }

    private func pair(_ written: AssistantSpans) -> EncodedRow {
        guard let span = written.spans.last else { return EncodedRow() }
        let bytes = Array(written.text.utf8)
        var input = closed(String(decoding: bytes[..<span.lowerBound], as: UTF8.self))
        let answer = String(decoding: bytes[span], as: UTF8.self).trimmingEnd()
        let target = closed(answer)
        guard !input.isEmpty, !target.isEmpty else { return EncodedRow() }
        let isTruncated = input.count > maxTokens
        if isTruncated, let last = input.last {
            input =
                last == tokenizer.eosTokenID ? input.prefix(maxTokens - 1) + [last] : Array(input.prefix(maxTokens))
        }
        return EncodedRow(example: EncodedExample(input: input, target: target), isTruncated: isTruncated)
    }

    /// The ids of a text with the special tokens that an encoder-decoder expects, unless the template wrote the end token.
    private func closed(_ text: String) -> [Int] {
        let bare = tokenizer.encode(text: text, addSpecialTokens: false)
        if let last = bare.last, last == tokenizer.eosTokenID { return bare }
        return tokenizer.encode(text: text)
    }

    /// Ends each run of masked-in tokens at the special token that closes the turn: what a template writes after it,
    /// such as a line break, is never generated.
    /// - Returns: whether a turn has no such token, so that the model would not learn to stop.
    private func closeTurns(_ mask: inout [Bool], _ ids: [Int], cuts: Bool) -> Bool {
        var isOpen = false
        var index = 0
        while index < mask.count {
            guard mask[index] else { index += 1; continue }
            let end = mask[index...].firstIndex(of: false) ?? mask.count
            let close = (index..<end).last { tokenizer.isSpecial(ids[$0]) }
            let rest = close.map { tokenizer.decode(tokens: Array(ids[($0 + 1)..<end])) }
            if let close, let rest, rest.allSatisfy(\.isWhitespace) {
                if cuts { for place in (close + 1)..<end { mask[place] = false } }
            } else {
                isOpen = true
            }
            index = end
        }
        return isOpen
    }
}

extension String {
    fileprivate func trimmingEnd() -> String {
        var rest = Substring(self)
        while let last = rest.last, last.isWhitespace { rest.removeLast() }
        return String(rest)
    }
}
