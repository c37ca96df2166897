import ArgumentParser
import Foundation
import PEFTSupport
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

    /// - Throws: ``UsageError`` for an unknown loss, or an option of the chat template without a value.
    func choice() throws -> ChatChoice {
        var choice = ChatChoice()
        (choice.wrapsTemplates, choice.messages, choice.maxLength) = (chat, messages, maxLength)
        choice.template = try template.choice()
        guard let loss else { return choice }
        guard let kind = ChatLoss(rawValue: loss.lowercased()) else {
            throw UsageError(
                "unknown --loss '\(loss)'",
                remedy: "use one of \(ChatLoss.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        choice.loss = kind
        return choice
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

    /// - Throws: ``UsageError`` for a variable without a value.
    func choice() throws -> ChatTemplateChoice {
        var choice = ChatTemplateChoice()
        (choice.template, choice.system) = (chatTemplate, system.map(TemplateOptions.unescape))
        for pair in chatOption {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2, !parts[0].isEmpty else {
                throw UsageError("--chat-option '\(pair)' has no '='", remedy: "use --chat-option name=value")
            }
            // A value that is not JSON is a string.
            choice.variables[parts[0]] = (try? JSON.parse(Data(parts[1].utf8), name: "")) ?? .string(parts[1])
        }
        return choice
    }

    /// - Parameter folder: the tokenizer's folder.
    func apply(to settings: inout ChatSettings, folder: URL) throws {
        try choice().apply(to: &settings, folder: folder)
    }
}
