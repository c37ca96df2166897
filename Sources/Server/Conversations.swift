import Foundation
import PEFTJinja
import PEFTSupport
import PEFTTokenizers

/// Turns conversations into prompts with the tokenizer's chat template.
struct Conversations: Sendable {
    private let tokenizer: Tokenizer
    private let template: Result<ChatTemplate, PEFTError>
    /// Whether an encoder reads the prompt, which then ends with the tokenizer's end token.
    private let isEncoderDecoder: Bool
    /// The token that ends an assistant turn; `nil` where the template has none.
    let turnEnd: Int?

    /// - Throws: ``PEFTError`` if `choice` is no template. A tokenizer without a template is an error of chat requests
    ///   only.
    init(_ tokenizer: Tokenizer, folder: URL, choice: String?, isEncoderDecoder: Bool) throws {
        (self.tokenizer, self.isEncoderDecoder) = (tokenizer, isEncoderDecoder)
        do { template = .success(try ChatTemplate.load(folder: folder, choice: choice)) } catch let error as PEFTError
        {
            if choice != nil { throw error }
            template = .failure(
                PEFTError(error.problem, remedy: "start the server with --chat-template, or use /v1/completions"))
        }
        turnEnd = Self.turnEnd(try? template.get(), tokenizer)
    }

    /// Token ids of the prompt for the assistant's next turn.
    /// - Throws: ``PEFTError`` and ``APIError`` for messages that the template can't render.
    func prompt(_ messages: [JSON], variables: [String: JSON], addGenerationPrompt: Bool = true) throws -> [Int] {
        guard !messages.isEmpty else { throw APIError.invalid("'messages' is empty", "messages") }
        let values = try messages.enumerated().map { try Self.message($1, index: $0) }
        let text = try template.get().render(
            values, addGenerationPrompt: addGenerationPrompt, variables: variables.mapValues { JinjaValue($0) }
        ).text
        return try withTokenizerErrors { tokenizer.encode(text: text, addSpecialTokens: isEncoderDecoder) }
    }

    private static func message(_ json: JSON, index: Int) throws -> JinjaValue {
        let name = "messages[\(index)]"
        guard var fields = json.object, fields["role"]?.string != nil else {
            throw APIError.invalid("'\(name)' has no role", name)
        }
        // Parts of text are one text, which every template accepts.
        if let parts = fields["content"]?.array {
            let texts = parts.compactMap { $0["type"] == "text" ? $0["text"]?.string : nil }
            guard texts.count == parts.count else {
                throw APIError.invalid("'\(name).content' has parts other than text, which are not supported", name)
            }
            fields["content"] = .string(texts.joined(separator: "\n"))
        }
        guard let content = fields["content"] else { throw APIError.invalid("'\(name)' has no content", name) }
        guard content == .null || content.string != nil else {
            throw APIError.invalid("'\(name).content' is no text", name)
        }
        return JinjaValue(JSON.object(fields))
    }

    /// The special token after an assistant's text.
    private static func turnEnd(_ template: ChatTemplate?, _ tokenizer: Tokenizer) -> Int? {
        let answer = "peft-answer"
        let turns: [JSON] = [["role": "user", "content": "a"], ["role": "assistant", "content": .string(answer)]]
        guard let text = try? template?.render(turns.map { JinjaValue($0) }).text,
            let end = text.range(of: answer, options: .backwards)?.upperBound, end < text.endIndex,
            let first =
                (try? withTokenizerErrors { tokenizer.encode(text: String(text[end...]), addSpecialTokens: false) })?
                .first
        else { return nil }
        return tokenizer.isSpecial(first) ? first : nil
    }
}
