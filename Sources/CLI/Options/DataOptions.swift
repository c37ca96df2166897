import ArgumentParser
import Foundation
import LanguageModels
import PEFTSupport
import Training

struct TemplateOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Prompt template with {fields} of the data; \\n is a line break.", valueName: "template"))
    var prompt: String?

    @Option(help: ArgumentHelp("Target template with {fields} of the data.", valueName: "template"))
    var target: String?

    @Option(
        help: ArgumentHelp(
            "Template of the second text: of a pair to classify, or the positive of an embedding pair.",
            valueName: "template"))
    var pair: String?

    @Option(
        help: ArgumentHelp("Template of a hard negative, for embeddings.", valueName: "template"))
    var negative: String?

    @Option(
        help: ArgumentHelp(
            "Task, if it does not follow from the model and the data: \(ModelTask.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "task"))
    var task: String?

    @Option(
        help: ArgumentHelp(
            "Pooling of token embeddings: mean, cls, last-token, mean-sqrt-length or weighted-mean (default: the model's).",
            valueName: "mode"))
    var pooling: String?

    @Option(
        help: ArgumentHelp(
            "Maximum number of prompt tokens (default: 512); longer prompts are truncated. Targets are never truncated.",
            valueName: "tokens"))
    var maxInput: Int?

    @OptionGroup var languages: LanguageOptions
    @OptionGroup var layout: FormatOptions

    static let defaultMaxInput = DataSettings.defaultMaxInputTokens

    /// The settings, with names checked.
    /// - Parameter chat: `nil` for commands that read no chats.
    func settings(_ chat: ChatOptions? = nil) throws -> DataSettings {
        var settings = try templateSettings()
        settings.format = try layout.choice()
        if let chat { settings.chat = try chat.choice() }
        return settings
    }

    /// The settings of commands that detect neither formats nor chats.
    func templateSettings() throws -> DataSettings {
        var settings = DataSettings(
            prompt: prompt.map(Self.unescape), target: target.map(Self.unescape), pair: pair.map(Self.unescape),
            negative: negative.map(Self.unescape))
        languages.apply(to: &settings)
        settings.task = try choice()
        settings.maxInputTokens = maxInput
        return settings
    }

    /// The task and pooling, with names checked.
    func choice() throws -> TaskChoice {
        func named<Value: RawRepresentable & CaseIterable>(_ name: String?, option: String) throws -> Value?
        where Value.RawValue == String {
            guard let name else { return nil }
            if let value = Value(rawValue: name.lowercased()) { return value }
            let all = Value.allCases.map(\.rawValue)
            let hint = nearestName(to: name, in: all).map { "did you mean '\($0)'? " } ?? ""
            throw UsageError(
                "unknown --\(option) '\(name)'", remedy: hint + "use one of \(all.joined(separator: ", "))")
        }
        return TaskChoice(task: try named(task, option: "task"), pooling: try named(pooling, option: "pooling"))
    }

    /// Replaces the escapes `\n`, `\t` and `\\`, which a shell's single quotes leave as they are.
    static func unescape(_ text: String) -> String {
        var result = ""
        var characters = text.makeIterator()
        while let character = characters.next() {
            guard character == "\\" else { result.append(character); continue }
            switch characters.next() {
            case "n": result.append("\n")
            case "t": result.append("\t")
            case "\\": result.append("\\")
            case let other?: result.append("\\"); result.append(other)
            case nil: result.append("\\")
            }
        }
        return result
    }
}
