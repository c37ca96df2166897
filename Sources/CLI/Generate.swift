import ArgumentParser
import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

struct Generate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Generate text from a prompt, a dataset or a chat.",
        discussion: """
            peft generate --adapter my-adapter 'Summarize: …'
            echo 'Summarize: …' | peft generate --adapter my-adapter
            peft generate --adapter my-adapter --field dialogue=@talk.txt

            peft generate --adapter my-adapter --data rows.jsonl --output answers.jsonl

            --field and --data fill in the prompt template: --prompt, or the one the adapter was trained with. --output
            writes the data with an additional column output, as JSONL, CSV or TSV, or the generated texts alone (.txt,
            with line breaks as \\n).

            peft generate --adapter news=folder --adapter mail=other 'news:Summarize: …' 'mail:Summarize: …'
            peft generate --adapter news=folder --adapter mail=other --data rows.jsonl --adapter-field kind

            Several adapters share one base model and, where possible, mixed-adapter batches; base is the model without
            adapters.

            peft generate --model my-chat-model --chat --system 'Be brief.' 'What is a monad?'
            peft generate --adapter my-adapter --messages chat.json

            With --chat, or an adapter trained on chats, the text is a user turn, formatted with the chat template. On a
            terminal without a text, an interactive chat starts. --messages reads a conversation: a list of messages, or
            an object with messages and tools.
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Adapter folder; repeatable with names.", valueName: "[name=]folder"))
    var adapter: [String] = []
    @Flag(help: "Merge the adapter into the weights first.") var merge = false
    @Argument(help: "Prompt (default: standard input); \\n is a line break.") var text: [String] = []
    @Option(help: DataHelp.prompts) var data: [String] = []
    @Option(help: ArgumentHelp("Maximum number of examples.", valueName: "n")) var limit: Int?
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Write the data with the generated texts: .jsonl, .csv, .tsv or .txt.", valueName: "file"))
    var output: String?
    @Option(help: ArgumentHelp("Field of the data that names each example's adapter.", valueName: "field"))
    var adapterField = "adapter"
    @Option(help: ArgumentHelp("Generation batch size.", valueName: "n")) var batchSize = 16
    @Option(
        help: ArgumentHelp("Prompt template for --field and --data (default: the adapter's).", valueName: "template"))
    var prompt: String?
    @Option(
        help: ArgumentHelp(
            "Value of a template field; name=@file reads it from a file. Repeatable.", valueName: "name=value"))
    var field: [String] = []
    @Option(help: ArgumentHelp("Maximum number of prompt tokens (default: 512).", valueName: "tokens")) var maxInput:
        Int?
    @Flag(
        inversion: .prefixedNo, help: "Treat the text as a user turn of a chat (default: as the adapter was trained)."
    )
    var chat: Bool?
    @Option(help: ArgumentHelp("JSON file of a conversation to continue.", valueName: "file"))
    var messages: String?
    @OptionGroup var template: ChatTemplateOptions
    @OptionGroup var languages: LanguageOptions
    @OptionGroup var generation: GenerationOptions
    @Option(
        help: ArgumentHelp("Generate JSON that satisfies the JSON Schema in this file.", valueName: "file"))
    var jsonSchema: String?
    @Flag(help: "Generate a JSON object.") var jsonObject = false
    @Option(help: "Random seed for sampling.") var seed: UInt64 = 0
    @Flag(help: "Print the result as JSON.") var json = false
    @Flag(help: "Suppress progress output.") var quiet = false

    func run() throws {
        var parameters = try generation.parameters(seed: seed)
        try responseFormat()?.validate()
        if NamedAdapters.areMeant(by: adapter) { return try generateMany() }
        try require("--limit", limit)
        if !data.isEmpty { return try generateRows(parameters) }
        guard output == nil else {
            throw UsageError(
                "--output requires --data", remedy: "add --data, or redirect the output with >")
        }
        guard text.count < 2 else {
            throw UsageError("expected one text (got \(text.count))", remedy: "quote a text with spaces")
        }
        let adapted = try adaptedModel()
        if chat ?? (messages != nil || !template.isEmpty || adapted.record?.chat != nil) {
            return try generateChat(adapted, parameters)
        }
        let most = try mostInput(adapted.record)
        try ModelNotes.input(maxInput, for: adapted.model, adapted.tokenizer)
        let prompt = try promptText(adapted.record)
        let encoder = try RowEncoder(adapted.tokenizer, for: adapted.model, maxInputTokens: most)
        let translation = try translation(adapted.record, field.isEmpty ? nil : fieldRow(adapted.record).row)
        parameters.beginning = try encoder.beginning(translation)
        let (ids, isTruncated) = try encoder.prompt(prompt, languages: translation)
        if isTruncated {
            let isAtOption = encoder.maxInputTokens == most
            Console.note(
                "the prompt is truncated to \(encoder.maxInputTokens) tokens\(isAtOption ? "; raise --max-input to keep more" : "")"
            )
        }
        try write(prompt, ids, adapted, parameters)
    }

    /// The model with its adapter. It must generate text.
    func adaptedModel() throws -> AdaptedModel {
        let adapted = try AdaptedModel(model, adapter: adapter.first, merge: merge, generates: true)
        guard adapted.model.generates else {
            throw PEFTError(
                "this \(adapted.model.family) model is for \(adapted.model.head.task.rawValue) and does not generate text",
                remedy: "use peft predict")
        }
        return adapted
    }

    /// Maximum number of prompt tokens.
    func mostInput(_ record: TrainingRecord?) throws -> Int {
        try require("--max-input", maxInput, atLeast: 2)
        return maxInput ?? record?.maxInputTokens ?? TemplateOptions.defaultMaxInput
    }

    /// Generates from a prompt and prints the text, streamed token by token except with beam search.
    /// - Parameter endToken: an additional end token.
    @discardableResult
    func write(
        _ prompt: String, _ ids: [Int], _ adapted: AdaptedModel, _ parameters: GenerateParameters,
        endToken: Int? = nil
    ) throws -> String {
        let generator = try Generator(adapted.model, parameters)
        if let note = generator.settings.note { Console.note(note) }
        let start = ContinuousClock.now
        let streams = !json && generator.settings.beams == 1
        var cutShort = 0
        var decoder = adapted.tokenizer.streamingDecoder()
        let constraint = try constraint(adapted.model, adapted.tokenizer, generator.settings, endTokens: [endToken])
        let result = try generator.generate(
            [ids], constraint: constraint,
            onToken: { _, token in
                guard token != endToken, !Interrupt.isRequested, !Results.areLost else { return false }
                if streams { print(decoder.append(token), terminator: "") }
                return true
            }, onLastPosition: { _ in cutShort += 1 })
        let tokens = Array((result.first ?? []).prefix { $0 != endToken })
        let output = adapted.tokenizer.decode(tokens: tokens)
        let seconds = start.duration(to: .now).inSeconds
        if json {
            print(
                JSON.object([
                    "prompt": .string(prompt), "output": .string(output), "promptTokens": .integer(ids.count),
                    "tokens": .integer(tokens.count), "seconds": .number(seconds),
                ]).text())
        } else {
            print(streams ? decoder.finish() : output)
        }
        ModelNotes.lastPosition(cutShort, of: adapted.model)
        noteIncompleteJSON([output])
        return output
    }

    /// The languages of a prompt: the options', or those that the adapter was trained with.
    /// - Parameter row: the values of fields.
    func translation(_ record: TrainingRecord?, _ row: Row?) throws -> TranslationLanguages {
        func language(_ name: String, _ given: String?, _ known: String?) throws -> String? {
            guard let text = given ?? known else { return nil }
            let template = try Template(text)
            guard let row else {
                guard template.fields.isEmpty else {
                    throw UsageError(
                        "the language '\(text)' is a field of the data", remedy: "set --\(name)-language for a text")
                }
                return text
            }
            return try template.render(row)
        }
        return TranslationLanguages(
            source: try language("source", languages.sourceLanguage, record?.sourceLanguage),
            target: try language("target", languages.targetLanguage, record?.targetLanguage))
    }

    /// The prompt template for --field, and its fields' values.
    private func fieldRow(_ record: TrainingRecord?) throws -> (template: String, row: Row) {
        guard text.isEmpty else {
            throw UsageError("a text and --field are mutually exclusive", remedy: "use one of them")
        }
        guard let template = prompt.map(TemplateOptions.unescape) ?? record?.prompt else {
            throw UsageError(
                "--field requires a template", remedy: "add --prompt, or an adapter trained with peft")
        }
        var fields: [String: JSON] = [:]
        for pair in field {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(
                String.init)
            guard parts.count == 2 else {
                throw UsageError("--field '\(pair)' has no '='", remedy: "use --field name=value")
            }
            guard parts[1].hasPrefix("@") else {
                fields[parts[0]] = .string(TemplateOptions.unescape(parts[1]))
                continue
            }
            let file = String(parts[1].dropFirst())
            guard let content = try? String(contentsOfFile: file, encoding: .utf8) else {
                throw PEFTError("can't read \(file)", remedy: "check that the file exists and is UTF-8")
            }
            fields[parts[0]] = .string(content)
        }
        return (template, Row(fields, location: .init(file: "--field", number: 1, unit: .element)))
    }

    func promptText(_ record: TrainingRecord?) throws -> String {
        if !field.isEmpty {
            let (template, row) = try fieldRow(record)
            let parsed = try Template(template)
            if let missing = parsed.fields.first(where: { row[$0] == nil }) {
                throw UsageError(
                    "the template field '\(missing)' has no value; --field sets \(row.fields.keys.sorted().joined(separator: ", "))",
                    remedy: "add --field \(missing)=…")
            }
            return try parsed.render(row)
        }
        let input =
            try text.first.map(TemplateOptions.unescape)
            ?? String(decoding: StandardStreams.readToEnd(), as: UTF8.self)
        guard !input.trimmingCharacters(in: .whitespacesAndNewlines).isEmpty else {
            throw UsageError("the prompt is empty", remedy: "give a text as an argument or on standard input")
        }
        return input
    }
}
