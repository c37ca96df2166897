import ArgumentParser
import Foundation
import Support
import Tokenizers
import Training

struct ChatOptions: ParsableArguments {
    @Flag(help: "Write --prompt and --target as the turns of user and assistant.") var chat = false
    @Option(
        help: ArgumentHelp(
            "Field of the rows with the messages (found if it is messages, conversations, or prompt and completion).",
            valueName: "field"))
    var messages: String?
    @OptionGroup var template: ChatTemplateOptions
    @Option(
        help: ArgumentHelp(
            "Loss mask of chats: the assistant's tokens, those of its last turn, or all (assistant).",
            valueName: "assistant|last|all"))
    var loss: String?
    @Option(
        help: ArgumentHelp(
            "Maximum number of tokens of a chat (2048); longer chats are truncated, and left out if no loss remains.",
            valueName: "tokens"))
    var maxLength: Int?

    /// How the rows of a file are read as chats; `nil` where they aren't.
    /// - Parameters:
    ///   - templates: with a prompt and a target, rows are chats only under `--chat`.
    ///   - folder: the tokenizer's.
    ///   - record: what an adapter was trained with, which options override.
    func settings(
        _ templates: TemplateOptions, data: [String], folder: URL, record: TrainingRecord? = nil
    ) throws -> ChatSettings? {
        guard try areMeant(templates, data: data, record: record) else {
            guard template.isEmpty, loss == nil, maxLength == nil else {
                throw PEFTError(
                    "options for chats were given, and the rows are none",
                    remedy: "write --chat beside --prompt and --target, or name the rows' --messages")
            }
            return nil
        }
        guard templates.maxInput == nil else {
            throw PEFTError("--max-input is for prompts, and the rows are chats", remedy: "use --max-length")
        }
        var settings = record?.chat ?? ChatSettings()
        settings.field = messages ?? settings.field
        settings.maxLength = maxLength ?? settings.maxLength
        try template.apply(to: &settings, folder: folder)
        guard let loss else { return settings }
        guard let kind = ChatLoss(rawValue: loss.lowercased()) else {
            throw UsageError(
                "unknown --loss '\(loss)'",
                remedy: "there are \(ChatLoss.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        settings.loss = kind
        return settings
    }

    private func areMeant(_ templates: TemplateOptions, data: [String], record: TrainingRecord?) throws -> Bool {
        if chat {
            guard templates.prompt != nil || templates.target == nil, messages == nil || templates.prompt == nil
            else {
                throw UsageError(
                    "--chat needs --prompt and --target, or rows with messages", remedy: "give both or neither")
            }
            return true
        }
        if messages != nil { return true }
        guard templates.prompt == nil, templates.target == nil else { return false }
        if let record { return record.chat != nil }
        return try Rows.first(data).map(ChatRows.areIn) ?? false
    }

    /// The templates of rows that hold no messages themselves.
    func wrapped(_ templates: TemplateOptions, record: TrainingRecord? = nil) throws -> (
        prompt: Template, target: Template
    )? {
        guard messages == nil else { return nil }
        let known = record.flatMap { $0.chat == nil || $0.prompt.isEmpty ? nil : $0 }
        guard templates.prompt != nil || known != nil else { return nil }
        return (try templates.prompt(default: known?.prompt), try templates.target(default: known?.target))
    }
}

/// The template and what it is given.
struct ChatTemplateOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A Jinja file, or the name of one of the tokenizer's templates, instead of its usual one.",
            valueName: "file"))
    var chatTemplate: String?
    @Option(
        help: ArgumentHelp(
            "A variable of the template, such as enable_thinking=false; may be repeated.", valueName: "name=value"))
    var chatOption: [String] = []
    @Option(help: ArgumentHelp("System message of chats that have none.", valueName: "text")) var system: String?

    var isEmpty: Bool { chatTemplate == nil && chatOption.isEmpty && system == nil }

    func apply(to settings: inout ChatSettings, folder: URL) throws {
        if let chatTemplate {
            settings.template = try ChatTemplate.load(folder: folder, choice: chatTemplate).template.source
        }
        settings.system = system.map(TemplateOptions.unescape) ?? settings.system
        for pair in chatOption {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2, !parts[0].isEmpty else {
                throw UsageError("--chat-option '\(pair)' has no '='", remedy: "write --chat-option name=value")
            }
            // What isn't JSON is text.
            settings.variables[parts[0]] = (try? JSON.parse(Data(parts[1].utf8), name: "")) ?? .string(parts[1])
        }
    }
}
