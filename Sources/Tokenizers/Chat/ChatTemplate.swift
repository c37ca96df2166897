import Foundation
import PEFTJinja
import PEFTSupport

/// A chat template: the tokenizer's Jinja template with the tokenizer's special tokens.
///
/// Messages, tools and further variables are passed to the template as in transformers' `apply_chat_template`.
public struct ChatTemplate: Sendable {
    package let template: JinjaTemplate
    /// `bos_token` and the like, by name.
    package let specialTokens: [String: String]
    /// The template for conversations with tools, if the tokenizer has a separate one.
    private let toolTemplate: JinjaTemplate?

    /// The file name of the tokenizer's template.
    package static let fileName = "chat_template.jinja"

    package init(_ template: JinjaTemplate, specialTokens: [String: String] = [:]) {
        (self.template, self.specialTokens, toolTemplate) = (template, specialTokens, nil)
    }

    /// The template of the tokenizer in a folder: `chat_template.jinja`, else that of `tokenizer_config.json`, else
    /// `chat_template.json`.
    ///
    /// - Parameters:
    ///   - folder: the tokenizer's folder.
    ///   - choice: a template file, or the name of one of the tokenizer's templates, in place of the default one.
    ///   - source: the text of a template, which takes precedence.
    /// - Throws: ``PEFTError`` if there is no template, or it is invalid.
    public static func load(folder: URL, choice: String? = nil, source: String? = nil) throws -> ChatTemplate {
        let specialTokens = try SpecialTokens(folder: folder)
        let tokens = [
            "bos_token": specialTokens.bos, "eos_token": specialTokens.eos, "unk_token": specialTokens.unknown,
            "pad_token": specialTokens.pad, "cls_token": specialTokens.cls, "sep_token": specialTokens.sep,
            "mask_token": specialTokens.mask,
        ].compactMapValues { $0 }
        if let source { return ChatTemplate(try JinjaTemplate(source, name: "the chat template"), nil, tokens) }
        let named = try templates(in: folder, specialTokens.configuration)
        if let choice {
            if let template = named[choice] { return ChatTemplate(try template.parsed(), nil, tokens) }
            let file = URL(fileURLWithPath: NSString(string: choice).expandingTildeInPath)
            guard let text = try? String(contentsOf: file, encoding: .utf8) else {
                let names = named.keys.sorted().joined(separator: ", ")
                throw PEFTError(
                    "can't read the chat template \(choice)",
                    remedy:
                        "pass a readable file\(names.isEmpty ? "" : ", or the name of one of the tokenizer's templates: \(names)")"
                )
            }
            return ChatTemplate(try JinjaTemplate(text, name: file.lastPathComponent), nil, tokens)
        }
        guard let usual = named["default"] else {
            guard named.isEmpty else {
                throw PEFTError(
                    "the tokenizer in \(folder.path) has several chat templates and no default",
                    remedy: "choose one with --chat-template: \(named.keys.sorted().joined(separator: ", "))")
            }
            throw PEFTError(
                "the tokenizer in \(folder.path) has no chat template",
                remedy: "provide one with --chat-template, or use --prompt and --target without --chat")
        }
        return ChatTemplate(try usual.parsed(), try named["tool_use"]?.parsed(), tokens)
    }

    private init(_ template: JinjaTemplate, _ toolTemplate: JinjaTemplate?, _ specialTokens: [String: String]) {
        (self.template, self.toolTemplate, self.specialTokens) = (template, toolTemplate, specialTokens)
    }

    // MARK: Rendering

    /// Renders a conversation.
    ///
    /// - Parameters:
    ///   - messages: dictionaries with `role` and `content`; keys whose value is none are dropped.
    ///   - tools: tools that the model may call, as JSON schemas.
    ///   - addGenerationPrompt: whether to end the text with the generation prompt of the assistant's next turn.
    ///   - variables: further template variables, such as `enable_thinking`.
    /// - Throws: ``PEFTError`` naming the template's line, as ``JinjaTemplate/render(_:now:)`` does.
    package func render(
        _ messages: [JinjaValue], tools: JinjaValue? = nil, addGenerationPrompt: Bool = false,
        variables: [String: JinjaValue] = [:]
    ) throws -> JinjaTemplate.Rendering {
        var values = specialTokens.mapValues { JinjaValue.string($0) }
        values["documents"] = JinjaValue.none
        values.merge(variables) { _, given in given }
        values["messages"] = .list(messages.map(Self.normalized))
        values["tools"] = tools ?? JinjaValue.none
        values["add_generation_prompt"] = .boolean(addGenerationPrompt)
        return try chosen(tools).render(values)
    }

    /// Renders a conversation.
    ///
    /// Keys of objects are sorted in the text, as ``JSON`` doesn't keep their order; only templates that print whole
    /// objects (`tojson`) show it.
    ///
    /// - Parameters:
    ///   - messages: objects with `role` and `content`; keys whose value is null are dropped.
    ///   - tools: tools that the model may call, an array of JSON schemas.
    ///   - addGenerationPrompt: whether to end the text with the generation prompt of the assistant's next turn.
    ///   - variables: further template variables, such as `enable_thinking`.
    /// - Returns: the text, to be encoded without special tokens, which the template writes itself.
    /// - Throws: ``PEFTError`` naming the template's line.
    public func render(
        _ messages: [JSON], tools: JSON? = nil, addGenerationPrompt: Bool = false, variables: [String: JSON] = [:]
    ) throws -> String {
        try render(
            messages.map { JinjaValue($0) }, tools: tools.map { JinjaValue($0) },
            addGenerationPrompt: addGenerationPrompt, variables: variables.mapValues { JinjaValue($0) }
        ).text
    }

    /// Whether the template for these tools has `{% generation %}` blocks.
    package func hasGenerationBlocks(tools: JinjaValue? = nil) -> Bool { chosen(tools).hasGenerationBlocks }

    /// The text of the template for conversations with tools.
    package var toolSource: String { (toolTemplate ?? template).source }

    private func chosen(_ tools: JinjaValue?) -> JinjaTemplate {
        guard let toolTemplate, let tools, !tools.isNone else { return template }
        return toolTemplate
    }

    /// The keys of a message's reasoning; templates use one or the other.
    private static let reasoningKeys = ["reasoning_content", "thinking", "reasoning"]

    /// A message as transformers passes it: without keys that are none, and with its reasoning under both names that
    /// templates read.
    private static func normalized(_ message: JinjaValue) -> JinjaValue {
        guard let fields = message.dictionary else { return message }
        let reasoning = reasoningKeys.lazy.compactMap { fields[$0] }.first { !$0.isNone }
        var result = JinjaDictionary()
        if let reasoning { result["thinking"] = reasoning }
        for (key, value) in fields.entries where !value.isNone { result[key.text ?? ""] = value }
        if let reasoning { result["reasoning_content"] = reasoning }
        return .dictionary(result)
    }

    // MARK: Files

    private struct Source {
        var text: String
        var name: String
        func parsed() throws -> JinjaTemplate { try JinjaTemplate(text, name: name) }
    }

    /// The tokenizer's templates by name; the default one is called `default`.
    private static func templates(in folder: URL, _ configuration: StageFields?) throws -> [String: Source] {
        var result: [String: Source] = [:]
        let legacy = folder.appendingPathComponent("chat_template.json")
        if FileManager.default.fileExists(atPath: legacy.path) {
            result = try read(JSON.read(legacy)["chat_template"], name: "chat_template.json")
        }
        let own = try read(configuration?.values["chat_template"], name: "chat_template in tokenizer_config.json")
        result.merge(own) { _, own in own }
        let more = folder.appendingPathComponent("additional_chat_templates")
        for file in (try? FileManager.default.contentsOfDirectory(at: more, includingPropertiesForKeys: nil)) ?? []
        where file.pathExtension == "jinja" {
            result[file.deletingPathExtension().lastPathComponent] = try source(file)
        }
        let file = folder.appendingPathComponent(fileName)
        if FileManager.default.fileExists(atPath: file.path) { result["default"] = try source(file) }
        return result
    }

    private static func source(_ file: URL) throws -> Source {
        guard let text = try? String(contentsOf: file, encoding: .utf8) else {
            throw PEFTError("can't read \(file.path)", remedy: "check that it is readable and UTF-8")
        }
        return Source(text: text, name: file.lastPathComponent)
    }

    /// One template, or a list of named templates.
    private static func read(_ value: JSON?, name: String) throws -> [String: Source] {
        switch value {
        case nil, .null: return [:]
        case .string(let text): return ["default": Source(text: text, name: name)]
        case .array(let entries)?:
            return try entries.reduce(into: [:]) { result, entry in
                guard let own = entry["name"]?.string, let text = entry["template"]?.string else {
                    throw PEFTError("\(name) has a list entry without a name or a template")
                }
                result[own] = Source(text: text, name: "\(name) (\(own))")
            }
        case .object(let entries)?:
            return try entries.reduce(into: [:]) { result, entry in
                guard let text = entry.value.string else {
                    throw PEFTError("\(name): '\(entry.key)' is not a string")
                }
                result[entry.key] = Source(text: text, name: "\(name) (\(entry.key))")
            }
        default: throw PEFTError("\(name) is neither a string nor a list of templates")
        }
    }
}
