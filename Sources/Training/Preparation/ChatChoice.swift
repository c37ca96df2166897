import Foundation
import PEFTSupport
import PEFTTokenizers

/// How rows become conversations, as far as the user says (``ChatSettings`` once the data are known).
public struct ChatChoice: Sendable {
    /// Whether prompt and target are formatted as user and assistant turns with the chat template.
    public var wrapsTemplates = false
    /// The field with the messages; `nil` to detect it.
    public var messages: String?
    /// The chat template and its variables.
    public var template = ChatTemplateChoice()
    /// The tokens that contribute to the loss; `nil` for the adapter's choice, else the assistant's.
    public var loss: ChatLoss?
    /// Maximum number of tokens of a conversation; `nil` for the adapter's choice, else 2048.
    public var maxLength: Int?

    /// The model's own chat template, and its usual loss mask.
    public init() {}

    /// Whether settings are present that conversations alone have.
    var isSet: Bool { !template.isEmpty || loss != nil || maxLength != nil }

    /// The settings for data that hold conversations.
    /// - Parameters:
    ///   - folder: the tokenizer's folder, with its chat template.
    ///   - record: the settings that an adapter was trained with, which this choice overrides.
    /// - Throws: ``PEFTError`` for an unknown chat template.
    func settings(folder: URL, record: TrainingRecord?) throws -> ChatSettings {
        var settings = record?.chat ?? ChatSettings()
        settings.field = messages ?? settings.field
        settings.maxLength = maxLength ?? settings.maxLength
        try template.apply(to: &settings, folder: folder)
        settings.loss = loss ?? settings.loss
        return settings
    }
}

/// The chat template and its variables, as far as the user says.
public struct ChatTemplateChoice: Sendable {
    /// A Jinja file, or the name of one of the tokenizer's templates; `nil` for the tokenizer's template.
    public var template: String?
    /// A system message for conversations without one.
    public var system: String?
    /// Template variables besides the messages.
    public var variables: [String: JSON] = [:]

    /// The model's own chat template.
    public init() {}

    package var isEmpty: Bool { template == nil && system == nil && variables.isEmpty }

    /// - Parameter folder: the tokenizer's folder.
    /// - Throws: ``PEFTError`` if there is no such template.
    package func apply(to settings: inout ChatSettings, folder: URL) throws {
        if let template {
            settings.template = try ChatTemplate.load(folder: folder, choice: template).template.source
        }
        settings.system = system ?? settings.system
        settings.variables.merge(variables) { $1 }
    }
}
