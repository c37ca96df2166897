import Foundation
import LanguageModels
import PEFTJinja
import PEFTSupport
import PEFTTokenizers

/// How rows become conversations and token ids. Training on chats records these settings, so that evaluation and
/// generation use the same ones.
package struct ChatSettings: Codable, Sendable, Equatable {
    /// The field with the messages; `nil` to detect it.
    package var field: String?
    /// A system message for conversations that have none.
    package var system: String?
    /// The text of a chat template that replaces the tokenizer's.
    package var template: String?
    /// Template variables besides the messages.
    package var variables: [String: JSON] = [:]
    package var loss = ChatLoss.assistant
    /// Maximum number of tokens per example.
    package var maxLength = 2048

    package init() {}

    /// - Parameter folder: the tokenizer's folder, with its chat template.
    package func encoder(_ tokenizer: Tokenizer, folder: URL, for model: any LanguageModel) throws -> ChatEncoder {
        try ChatEncoder(
            tokenizer, .load(folder: folder, source: template), for: model, loss: loss, maxTokens: maxLength,
            variables: variables)
    }

    /// Reads the conversations of a file: the messages of its rows, or the rendered templates as turns of user and assistant.
    package func conversations(
        _ url: URL, prompt: Template? = nil, target: Template? = nil, limit: Int? = nil
    ) throws -> [Conversation] {
        try conversations(
            DataSet.read(url, limit: limit, keepsText: prompt == nil), prompt: prompt, target: target)
    }

    /// Conversations from rows that were already read, preferably with their JSON text, which keeps the order of keys.
    package func conversations(_ rows: [Row], prompt: Template? = nil, target: Template? = nil) throws
        -> [Conversation]
    {
        guard let prompt, let target else {
            return try rows.map(ChatRows(field: field, system: system).conversation)
        }
        return try examples(from: rows, prompt: prompt, target: target).map { Conversation($0, system: system) }
    }
}
