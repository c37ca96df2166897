import Foundation
import LanguageModels
import PEFTSupport
import Training

/// `peft generate --data`: generates a text for each row of a dataset; targets are not required.
extension Generate {
    func generateRows(_ parameters: GenerateParameters) throws {
        guard text.isEmpty, field.isEmpty, messages == nil else {
            throw UsageError("--data cannot be used with a text, --field or --messages", remedy: "use one of them")
        }
        try require("--batch-size", batchSize)
        let file = try output.map { try RowsOutput($0) }
        let adapted = try adaptedModel()
        try ModelNotes.generation(parameters, for: adapted.model)
        let rows = try DataSet.read(DataSource.all(data), limit: limit, keepsText: true)
        let asked = try prompts(rows, adapted)
        var evaluator = Evaluator(
            model: adapted.model, tokenizer: adapted.tokenizer, parameters: parameters, batchSize: batchSize)
        evaluator.constraint = try constraint(
            adapted.model, adapted.tokenizer, GenerationSettings(parameters, for: adapted.model),
            endTokens: asked.map(\.endToken))
        let display = ProgressDisplay(isQuiet: quiet || json || output == nil && Console.outputIsTerminal)
        let start = ContinuousClock.now
        var cutShort = 0
        let generated = try evaluator.generate(
            asked.map(\.ids), beginnings: asked.map(\.beginning), endToken: asked.first?.endToken,
            onProgress: {
                display.update(share: Double($0) / Double(rows.count), "\($0) of \(counted(rows.count, "example"))")
            }, onLastPosition: { _ in cutShort += 1 })
        display.finish()
        ModelNotes.lastPosition(cutShort, of: adapted.model)
        let seconds = start.duration(to: .now).inSeconds
        let texts = generated.map { adapted.tokenizer.decode(tokens: $0) }
        noteIncompleteJSON(texts)
        let columns = RowColumns.of(rows)
        let results = texts.map { [("output", JSON.string($0))] as RowsOutput.Result }
        try file?.write(rows, columns: columns, results)
        if json {
            let list = zip(asked, zip(generated, texts)).map { asked, answer -> JSON in
                [
                    "prompt": .string(asked.text), "output": .string(answer.1),
                    "promptTokens": .integer(asked.ids.count), "tokens": .integer(answer.0.count),
                ]
            }
            print(JSON.object(["rows": .array(list), "seconds": .number(seconds)]).text())
        } else if let output {
            let tokens = generated.reduce(0) { $0 + $1.count }
            if !quiet {
                Console.note(
                    "\(counted(rows.count, "example")), \(counted(tokens, "token")) in \(Console.duration(seconds)), saved to \(output)"
                )
            }
        } else {
            print(RowsOutput(.jsonl).text(rows, columns: columns, results), terminator: "")
        }
    }

    private typealias Prompt = (text: String, ids: [Int], endToken: Int?, beginning: TextBeginning)

    /// The prompt of each row: its messages formatted with the chat template, or the filled-in prompt template, which is a
    /// user turn if the adapter was trained on chats.
    private func prompts(_ rows: [Row], _ adapted: AdaptedModel) throws -> [Prompt] {
        let record = adapted.record
        var settings = DataSettings(prompt: prompt.map(TemplateOptions.unescape))
        let templates: RowTemplates
        if chat == false {
            templates = try settings.templates(record: record, needsTarget: false)
        } else {
            settings.chat.template = try template.choice()
            settings.chat.wrapsTemplates = chat ?? (!template.isEmpty || record?.chat != nil)
            let format = try settings.exampleFormat(
                firstRow: { rows.first }, tokenizerFolder: adapted.tokenizerFolder, record: record, needsTarget: false
            )
            switch format {
            case .chats(let settings, let turns): return try prompts(rows, settings, turns, adapted)
            case .texts(let texts): templates = texts
            }
        }
        // An adapter that was trained on texts without prompts has an empty template.
        guard !templates.prompt.text.isEmpty else {
            throw UsageError("--data requires a prompt template", remedy: "add --prompt, such as --prompt '{text}'")
        }
        let most = try mostInput(record)
        try ModelNotes.input(maxInput, for: adapted.model, adapted.tokenizer)
        let encoder = try RowEncoder(adapted.tokenizer, for: adapted.model, maxInputTokens: most)
        var truncated = 0
        let prompts = try rows.map { row -> Prompt in
            let text = try templates.prompt.render(row)
            let languages = try translation(record, row)
            let (ids, isTruncated) = try encoder.prompt(text, languages: languages)
            if isTruncated { truncated += 1 }
            return (text, ids, nil, try encoder.beginning(languages))
        }
        if truncated > 0 {
            Console.note(
                "\(counted(truncated, "prompt")) \(truncated == 1 ? "is" : "are") truncated to \(encoder.maxInputTokens) tokens\(encoder.maxInputTokens == most ? "; raise --max-input to keep more" : "")"
            )
        }
        return prompts
    }

    /// The prompts of conversations: the rows' messages, or a user turn with the filled-in template.
    private func prompts(_ rows: [Row], _ settings: ChatSettings, _ turns: RowTemplates?, _ adapted: AdaptedModel)
        throws
        -> [Prompt]
    {
        let chats = try settings.encoder(adapted.tokenizer, folder: adapted.tokenizerFolder, for: adapted.model)
        return try conversations(rows, settings, turns?.prompt).map { conversation in
            let ids =
                conversation.endsWithAssistant
                ? try chats.question(conversation).prompt
                : try chats.prompt(
                    conversation.messages, tools: conversation.tools, variables: conversation.variables)
            return (
                adapted.tokenizer.decode(tokens: ids, skipSpecialTokens: false), ids, chats.turnEnd, TextBeginning()
            )
        }
    }

    private func conversations(_ rows: [Row], _ settings: ChatSettings, _ prompt: Template?) throws -> [Conversation]
    {
        guard let prompt else { return try settings.conversations(rows) }
        return try rows.map { row in
            var conversation = Conversation(
                messages: [Conversation.message("user", try prompt.render(row))], row: row.location)
            if let system = settings.system { conversation.insert(system: system) }
            return conversation
        }
    }
}
