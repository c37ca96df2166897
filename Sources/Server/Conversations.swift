import Foundation
import LanguageModels
import PEFTJinja
import PEFTSupport
import PEFTTokenizers
import Training

/// Turns conversations into prompts with the tokenizer's chat template.
struct Conversations: Sendable {
    private let tokenizer: Tokenizer
    private let template: Result<ChatTemplate, PEFTError>
    /// Whether an encoder reads the prompt, which then ends with the tokenizer's end token.
    private let isEncoderDecoder: Bool
    /// The token that ends an assistant turn; `nil` where the template has none.
    let turnEnd: Int?
    /// How calls of tools are written, if the template has tools and a known format.
    let toolFormat: ToolCallParser.Format?

    /// System message of conversations that have none.
    private let system: String?
    /// Variables of the template that requests don't set.
    private let variables: [String: JSON]

    /// - Parameters:
    ///   - choice: a template file, or the name of one of the tokenizer's templates.
    ///   - settings: how an adapter was trained on conversations.
    /// - Throws: ``PEFTError`` if `choice` is no template. A tokenizer without a template is an error of chat requests
    ///   only.
    init(
        _ tokenizer: Tokenizer, folder: URL, choice: String?, settings: ChatSettings? = nil, isEncoderDecoder: Bool
    ) throws {
        (self.tokenizer, self.isEncoderDecoder) = (tokenizer, isEncoderDecoder)
        (system, variables) = (settings?.system, settings?.variables ?? [:])
        do {
            template = .success(try ChatTemplate.load(folder: folder, choice: choice, source: settings?.template))
        } catch let error as PEFTError {
            if choice != nil { throw error }
            template = .failure(
                PEFTError(error.problem, remedy: "start the server with --chat-template, or use /v1/completions"))
        }
        turnEnd = Self.turnEnd(try? template.get(), tokenizer)
        toolFormat = (try? template.get().toolSource).flatMap { ToolCallParser.Format(chatTemplate: $0) }
    }

    /// Token ids of the prompt for the assistant's next turn.
    /// - Throws: ``PEFTError`` and ``APIError`` for messages that the template can't render.
    func prompt(
        _ messages: [OrderedJSON], tools: OrderedJSON? = nil, variables: [String: JSON],
        addGenerationPrompt: Bool = true
    ) throws -> [Int] {
        guard !messages.isEmpty else { throw APIError.invalid("'messages' is empty", "messages") }
        let template = try template.get()
        if tools != nil, !template.toolSource.contains("tools") {
            throw APIError.invalid("the model's chat template has no tools; leave out 'tools'", "tools")
        }
        let all = self.variables.merging(variables) { _, given in given }
        func render(_ messages: [JinjaValue]) throws -> String {
            try template.render(
                messages, tools: tools.map { JinjaValue($0) }, addGenerationPrompt: addGenerationPrompt,
                variables: all.mapValues { JinjaValue($0) }
            ).text
        }
        var values = try messages.enumerated().map { try Self.message($1, index: $0) }
        if let system, messages[0]["role"]?.scalar != "system" {
            values.insert(JinjaValue(fields: ["role": .string("system"), "content": .string(system)]), at: 0)
        }
        let text: String
        do { text = try render(values) } catch {
            // Some templates add the arguments of calls to strings.
            guard let others = ToolCalls.asText(values), let rendered = try? render(others) else { throw error }
            text = rendered
        }
        return try withTokenizerErrors { tokenizer.encode(text: text, addSpecialTokens: isEncoderDecoder) }
    }

    private static func message(_ json: OrderedJSON, index: Int) throws -> JinjaValue {
        let name = "messages[\(index)]"
        guard var members = json.members, json["role"]?.scalar?.string != nil else {
            throw APIError.invalid("'\(name)' has no role", name)
        }
        var content = json["content"]
        // Parts of text are one text, which every template accepts.
        if let parts = content?.elements {
            let texts = parts.compactMap { $0["type"]?.scalar == "text" ? $0["text"]?.scalar?.string : nil }
            guard texts.count == parts.count else {
                throw APIError.invalid("'\(name).content' has parts other than text, which are not supported", name)
            }
            content = .scalar(.string(texts.joined(separator: "\n")))
            members = members.map { $0.name == "content" ? .init("content", content ?? .scalar(.null)) : $0 }
        }
        guard content != nil || json["tool_calls"] != nil else {
            throw APIError.invalid("'\(name)' has no content", name)
        }
        guard content.map({ $0.scalar == .null || $0.scalar?.string != nil }) ?? true else {
            throw APIError.invalid("'\(name).content' is no text", name)
        }
        return ToolCalls.normalized(JinjaValue(.object(members)))
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
