import Foundation
import Jinja
import LanguageModels
import Support
import Tokenizers

/// How rows become conversations and these token ids: what a training on chats records, so that what follows does the
/// same.
public struct ChatSettings: Codable, Sendable, Equatable {
    /// The field with the messages; `nil` finds it.
    public var field: String?
    /// A system message for rows that have none.
    public var system: String?
    /// The text of a template that takes the place of the tokenizer's.
    public var template: String?
    /// What the template is given beside the messages.
    public var variables: [String: JSON] = [:]
    public var loss = ChatLoss.assistant
    /// Most tokens of a row.
    public var maxLength = 2048

    public init() {}

    /// - Parameter folder: the tokenizer's, with its template.
    public func encoder(_ tokenizer: Tokenizer, folder: URL, for model: any LanguageModel) throws -> ChatEncoder {
        try ChatEncoder(
            tokenizer, .load(folder: folder, source: template), for: model, loss: loss, maxTokens: maxLength,
            variables: variables)
    }

    /// The rows of a file: their messages, or the two templates' texts as the turns of user and assistant.
    public func conversations(
        _ url: URL, prompt: Template? = nil, target: Template? = nil, limit: Int? = nil
    ) throws -> [Conversation] {
        try conversations(
            DataSet.read(url, limit: limit, keepsText: prompt == nil), prompt: prompt, target: target)
    }

    /// The same of rows that were read already, best with their text.
    public func conversations(_ rows: [Row], prompt: Template? = nil, target: Template? = nil) throws
        -> [Conversation]
    {
        guard let prompt, let target else {
            return try rows.map(ChatRows(field: field, system: system).conversation)
        }
        return try examples(from: rows, prompt: prompt, target: target).map { Conversation($0, system: system) }
    }
}
