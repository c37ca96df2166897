import ArgumentParser
import Foundation
import LanguageModels
import Support
import Training

struct TemplateOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "What the model reads, with {fields} of the row; \\n is a line break.", valueName: "template"))
    var prompt: String?

    @Option(help: ArgumentHelp("What the model learns to write, with {fields} of the row.", valueName: "template"))
    var target: String?

    @Option(
        help: ArgumentHelp(
            "A second text: of a pair to classify, or the one that belongs to the prompt (embeddings).",
            valueName: "template"))
    var pair: String?

    @Option(
        help: ArgumentHelp("A text that doesn't belong to the prompt, as a hard negative.", valueName: "template"))
    var negative: String?

    @Option(
        help: ArgumentHelp(
            "Task, where the model and the rows don't tell: \(ModelTask.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "task"))
    var task: String?

    @Option(
        help: ArgumentHelp("Pooling of tokens into an embedding: mean or cls (the model's).", valueName: "way"))
    var pooling: String?

    @Option(
        help: ArgumentHelp(
            "Maximum number of prompt tokens (512); longer prompts are truncated. Targets never are.",
            valueName: "tokens"))
    var maxInput: Int?

    @OptionGroup var layout: FormatOptions

    static let defaultMaxInput = 512

    /// What was asked for, with names checked.
    func choice() throws -> TaskChoice {
        func named<Value: RawRepresentable & CaseIterable>(_ name: String?, option: String) throws -> Value?
        where Value.RawValue == String {
            guard let name else { return nil }
            if let value = Value(rawValue: name.lowercased()) { return value }
            let all = Value.allCases.map(\.rawValue)
            let hint = nearestName(to: name, in: all).map { "did you mean '\($0)'? " } ?? ""
            throw UsageError(
                "unknown --\(option) '\(name)'", remedy: hint + "there are \(all.joined(separator: ", "))")
        }
        return TaskChoice(task: try named(task, option: "task"), pooling: try named(pooling, option: "pooling"))
    }

    /// All templates; those that weren't given are what an adapter was trained with.
    /// - Parameter needsTarget: whether rows need one though no second text takes its place.
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
        throw UsageError("--\(option) is missing", remedy: "give a template such as --\(option) \(example)")
    }

    /// `\n`, `\t` and `\\` as a shell's plain quotes leave them.
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
    /// The rows of a file as chats, at most `limit`.
    static func read(
        _ path: String, _ settings: ChatSettings, _ prompt: Template?, _ target: Template?, limit: Int?
    ) throws -> [Conversation] {
        try require("--limit", limit)
        return try read([path], settings, prompt, target, limit: limit)
    }

    /// The rows of a file as examples, at most `limit`.
    static func read(_ path: String, _ templates: RowTemplates, limit: Int? = nil) throws -> [Example] {
        try require("--limit", limit)
        return try read([path], templates, limit: limit)
    }
}
