import ArgumentParser
import Foundation
import Support
import Tokenizers
import Training

struct ChatOptions: ParsableArguments {
    @Flag(help: "Format --prompt and --target as user and assistant turns with the chat template.") var chat = false
    @Option(
        help: ArgumentHelp(
            "Field that holds the messages (default: detected among messages, conversations, and prompt with completion).",
            valueName: "field"))
    var messages: String?
    @OptionGroup var template: ChatTemplateOptions
    @Option(
        help: ArgumentHelp(
            "Tokens of chats that contribute to the loss: the assistant's, those of its last turn, or all (default: assistant).",
            valueName: "assistant|last|all"))
    var loss: String?
    @Option(
        help: ArgumentHelp(
            "Maximum number of tokens of a chat (default: 2048); longer chats are truncated, and dropped if no token that contributes to the loss remains.",
            valueName: "tokens"))
    var maxLength: Int?

    /// How rows are read as chats; `nil` if they are not chats.
    /// - Parameters:
    ///   - templates: with a prompt and a target, rows are chats only with `--chat`.
    ///   - folder: the tokenizer's folder.
    ///   - record: the settings an adapter was trained with, which options override.
    func settings(
        _ templates: TemplateOptions, data: [String], folder: URL, record: TrainingRecord? = nil
    ) throws -> ChatSettings? {
        guard try areMeant(templates, data: data, record: record) else {
            guard template.isEmpty, loss == nil, maxLength == nil else {
                throw PEFTError(
                    "chat options require chats, but the data has no messages",
                    remedy: "add --chat to --prompt and --target, or name the field with --messages")
            }
            return nil
        }
        guard templates.maxInput == nil else {
            throw PEFTError("--max-input applies to prompts, but the data holds chats", remedy: "use --max-length")
        }
        var settings = record?.chat ?? ChatSettings()
        settings.field = messages ?? settings.field
        settings.maxLength = maxLength ?? settings.maxLength
        try template.apply(to: &settings, folder: folder)
        guard let loss else { return settings }
        guard let kind = ChatLoss(rawValue: loss.lowercased()) else {
            throw UsageError(
                "unknown --loss '\(loss)'",
                remedy: "use one of \(ChatLoss.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        settings.loss = kind
        return settings
    }

    private func areMeant(_ templates: TemplateOptions, data: [String], record: TrainingRecord?) throws -> Bool {
        if chat {
            guard templates.prompt != nil || templates.target == nil, messages == nil || templates.prompt == nil
            else {
                throw UsageError(
                    "--chat requires --prompt and --target, or data with messages",
                    remedy: "use both templates or neither")
            }
            return true
        }
        if messages != nil { return true }
        guard templates.prompt == nil, templates.target == nil else { return false }
        if let record { return record.chat != nil }
        return try Rows.first(data).map(ChatRows.areIn) ?? false
    }

    /// The templates of rows without messages.
    func wrapped(_ templates: TemplateOptions, record: TrainingRecord? = nil) throws -> (
        prompt: Template, target: Template
    )? {
        guard messages == nil else { return nil }
        let known = record.flatMap { $0.chat == nil || $0.prompt.isEmpty ? nil : $0 }
        guard templates.prompt != nil || known != nil else { return nil }
        return (try templates.prompt(default: known?.prompt), try templates.target(default: known?.target))
    }
}

/// The chat template and its variables.
struct ChatTemplateOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Chat template: a Jinja file, or the name of one of the tokenizer's templates (default: the tokenizer's).",
            valueName: "file"))
    var chatTemplate: String?
    @Option(
        help: ArgumentHelp(
            "Variable of the chat template, such as enable_thinking=false. Repeatable.", valueName: "name=value"))
    var chatOption: [String] = []
    @Option(help: ArgumentHelp("System message for chats without one.", valueName: "text")) var system: String?

    var isEmpty: Bool { chatTemplate == nil && chatOption.isEmpty && system == nil }

    func apply(to settings: inout ChatSettings, folder: URL) throws {
        if let chatTemplate {
            settings.template = try ChatTemplate.load(folder: folder, choice: chatTemplate).template.source
        }
        settings.system = system.map(TemplateOptions.unescape) ?? settings.system
        for pair in chatOption {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2, !parts[0].isEmpty else {
                throw UsageError("--chat-option '\(pair)' has no '='", remedy: "use --chat-option name=value")
            }
            // A value that is not JSON is a string.
            settings.variables[parts[0]] = (try? JSON.parse(Data(parts[1].utf8), name: "")) ?? .string(parts[1])
        }
    }
}
