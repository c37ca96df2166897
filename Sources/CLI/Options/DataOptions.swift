import ArgumentParser
import Foundation
import LanguageModels
import Support
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
        help: ArgumentHelp("Pooling of token embeddings: mean or cls (default: the model's).", valueName: "mode"))
    var pooling: String?

    @Option(
        help: ArgumentHelp(
            "Maximum number of prompt tokens (default: 512); longer prompts are truncated. Targets are never truncated.",
            valueName: "tokens"))
    var maxInput: Int?

    @OptionGroup var layout: FormatOptions

    static let defaultMaxInput = 512

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

    /// All templates; missing ones are those the adapter was trained with.
    /// - Parameter needsTarget: whether a target is required if there is no second text.
    func rows(record: TrainingRecord? = nil, needsTarget: Bool = true) throws -> RowTemplates {
        let task = try choice().task
        let pair = try (pair.map(Self.unescape) ?? record?.pair).map { try Template($0) }
        let negative = try (negative.map(Self.unescape) ?? record?.negative).map { try Template($0) }
        let known = record.flatMap { $0.target.isEmpty ? nil : $0.target }
        let isOptional = !needsTarget || task == .embeddings || pair != nil && task == nil
        return RowTemplates(
            prompt: try prompt(default: record?.prompt),
            target: target == nil && known == nil && isOptional ? nil : try target(default: known), pair: pair,
            negative: negative)
    }

    func prompt(default fallback: String? = nil) throws -> Template {
        try template(prompt, fallback, option: "prompt", example: "'Summarize: {dialogue}'")
    }

    func target(default fallback: String? = nil) throws -> Template {
        try template(target, fallback, option: "target", example: "'{summary}'")
    }

    private func template(_ given: String?, _ fallback: String?, option: String, example: String) throws -> Template {
        if let given { return try checkingOptions { try Template(Self.unescape(given)) } }
        if let fallback { return try Template(fallback) }
        throw UsageError("--\(option) is missing", remedy: "add a template such as --\(option) \(example)")
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

enum Rows {
    /// At most `limit` rows of a file as chats.
    static func read(
        _ path: String, _ settings: ChatSettings, _ prompt: Template?, _ target: Template?, limit: Int?
    ) throws -> [Conversation] {
        try require("--limit", limit)
        return try read([path], settings, prompt, target, limit: limit)
    }

    /// At most `limit` rows of a file as examples.
    static func read(_ path: String, _ templates: RowTemplates, limit: Int? = nil) throws -> [Example] {
        try require("--limit", limit)
        return try read([path], templates, limit: limit)
    }
}
