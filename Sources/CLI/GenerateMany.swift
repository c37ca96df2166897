import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Training

/// Generates with several adapters; prompts for different adapters share mixed-adapter batches where possible.
extension Generate {
    private struct Item {
        let adapter: String?
        let prompt: String
        /// The row of `--data`.
        var row: Row?
        /// The prompt's token ids, if formatted with a chat template.
        var chat: [Int]?
        /// An additional end token.
        var endToken: Int?
    }

    func generateMany() throws {
        guard !merge else {
            throw UsageError("--merge cannot be used with several adapters", remedy: "merge one with peft merge")
        }
        guard messages == nil else {
            throw UsageError(
                "--messages cannot be used with several adapters", remedy: "use one adapter, or rows of --data")
        }
        try require("--batch-size", batchSize)
        let parameters = try generation.parameters(seed: seed)
        let file = try output.map { path in
            guard !data.isEmpty else {
                throw UsageError(
                    "--output requires --data", remedy: "add --data, or redirect the output with >")
            }
            return try RowsOutput(path)
        }
        let named = try NamedAdapters(model, adapter, generates: true)
        var chats = NamedChats(named)
        let items = try data.isEmpty ? prompts(named, &chats) : rows(named, &chats)
        let records = named.records
        try ModelNotes.generation(parameters, for: named.model)
        var beginnings: [TextBeginning] = []
        let encoded = try items.map { item -> [Int] in
            if let ids = item.chat {
                beginnings.append(TextBeginning())
                return ids
            }
            let record = item.adapter.flatMap { records[$0] }
            let most = maxInput ?? record?.maxInputTokens ?? TemplateOptions.defaultMaxInput
            let encoder = try RowEncoder(named.tokenizer, for: named.model, maxInputTokens: most)
            let languages = try translation(record, item.row)
            beginnings.append(try encoder.beginning(languages))
            let (ids, isTruncated) = try encoder.prompt(item.prompt, languages: languages)
            if isTruncated {
                Console.note(
                    "a prompt is truncated to \(encoder.maxInputTokens) tokens; raise --max-input to keep more")
            }
            return ids
        }
        let start = ContinuousClock.now
        let display = ProgressDisplay(isQuiet: json || quiet)
        var cutShort = 0
        var batch = MixedBatch(named.set)
        batch.beginnings = beginnings
        batch.constraint = try constraint(
            named.model, named.tokenizer, GenerationSettings(parameters, for: named.model),
            endTokens: items.map(\.endToken))
        let all = try batch.generateAll(
            encoded, adapters: items.map(\.adapter), parameters: parameters, batchSize: batchSize,
            onProgress: {
                display.update(share: Double($0) / Double(items.count), "\($0) of \(counted(items.count, "prompt"))")
            },
            onLastPosition: { _ in cutShort += 1 })
        display.finish()
        ModelNotes.lastPosition(cutShort, of: named.model)
        let generated = zip(items, all).map { item, tokens in Array(tokens.prefix { $0 != item.endToken }) }
        noteIncompleteJSON(generated.map { named.tokenizer.decode(tokens: $0) })
        let seconds = start.duration(to: .now).inSeconds
        let results = items.indices.map { index -> JSON in
            [
                "adapter": .string(items[index].adapter ?? NamedAdapters.base),
                "prompt": .string(items[index].prompt),
                "output": .string(named.tokenizer.decode(tokens: generated[index])),
                "promptTokens": .integer(encoded[index].count), "tokens": .integer(generated[index].count),
            ]
        }
        if let file {
            let rows = items.compactMap(\.row)
            try file.write(
                rows, columns: RowColumns.of(rows),
                results.map { [("output", $0["output"] ?? .null)] })
        }
        if json {
            print(JSON.object(["rows": .array(results), "seconds": .number(seconds)]).text())
        } else if file == nil {
            for result in results {
                print("\(result["adapter"]?.string ?? ""): \(result["output"]?.string ?? "")")
            }
        }
    }

    /// The `name:prompt` arguments of the command line.
    private func prompts(_ named: NamedAdapters, _ chats: inout NamedChats) throws -> [Item] {
        guard field.isEmpty else {
            throw UsageError("--field cannot be used with several adapters", remedy: "use a data file with --data")
        }
        guard !text.isEmpty else {
            throw UsageError(
                "the prompt is missing", remedy: "add one such as '\(named.set.names[0]):text', or --data")
        }
        return try text.map { text in
            guard let colon = text.firstIndex(of: ":") else {
                throw UsageError(
                    "the prompt '\(text.prefix(40))' names no adapter",
                    remedy: "use a form such as '\(named.set.names[0]):\(text.prefix(12))'")
            }
            let prompt = TemplateOptions.unescape(String(text[text.index(after: colon)...]))
            guard !prompt.trimmingCharacters(in: .whitespacesAndNewlines).isEmpty else {
                throw UsageError("the prompt '\(text)' is empty", remedy: "add a text after the colon")
            }
            return try item(prompt, adapter: try named.adapter(named: String(text[..<colon])), named, &chats)
        }
    }

    /// A plain prompt, or a user turn if the adapter was trained on chats.
    private func item(_ prompt: String, adapter: String?, _ named: NamedAdapters, _ chats: inout NamedChats) throws
        -> Item
    {
        guard chat ?? (!template.isEmpty || chats.areTrained(adapter)) else {
            return Item(adapter: adapter, prompt: prompt)
        }
        let (encoder, settings) = try chats.encoder(adapter, template)
        var conversation = Conversation(
            messages: [Conversation.message("user", prompt)], row: .init(file: "prompt", number: 1, unit: .element))
        if let system = settings.system { conversation.insert(system: system) }
        return try item(conversation, adapter: adapter, named, encoder)
    }

    /// The prompt for the last assistant turn of a conversation, or for the next one if it ends with another role.
    private func item(_ conversation: Conversation, adapter: String?, _ named: NamedAdapters, _ encoder: ChatEncoder)
        throws -> Item
    {
        let ids =
            conversation.endsWithAssistant
            ? try encoder.question(conversation).prompt
            : try encoder.prompt(
                conversation.messages, tools: conversation.tools, variables: conversation.variables)
        return Item(
            adapter: adapter, prompt: named.tokenizer.decode(tokens: ids, skipSpecialTokens: false), chat: ids,
            endToken: encoder.turnEnd)
    }

    /// The prompts of `--data`: each row holds messages, or fills `--prompt` or the template of its adapter.
    private func rows(_ named: NamedAdapters, _ chats: inout NamedChats) throws -> [Item] {
        guard text.isEmpty, field.isEmpty else {
            throw UsageError("--data cannot be used with a text or --field", remedy: "use one of them")
        }
        let rows = try DataSet.read(DataSource.all(data), limit: limit, keepsText: true)
        return try rows.map { row in
            let adapter = try named.adapter(of: row, field: adapterField)
            let record = adapter.flatMap { named.records[$0] }
            if prompt == nil, chat != false, record?.chat?.field != nil || ChatRows.areIn(row) {
                let (encoder, settings) = try chats.encoder(adapter, self.template)
                var item = try item(settings.conversations([row])[0], adapter: adapter, named, encoder)
                item.row = row
                return item
            }
            guard let template = prompt.map(TemplateOptions.unescape) ?? record?.prompt else {
                throw PEFTError(
                    "\(row.location): no prompt template for the adapter '\(adapter ?? NamedAdapters.base)'",
                    remedy: "add --prompt, such as --prompt '{text}'")
            }
            var item = try item(Template(template).render(row), adapter: adapter, named, &chats)
            item.row = row
            return item
        }
    }
}

/// Chat templates by adapter, cached.
private struct NamedChats {
    private let named: NamedAdapters
    private var known: [String?: (ChatEncoder, ChatSettings)] = [:]

    init(_ named: NamedAdapters) { self.named = named }

    func areTrained(_ adapter: String?) -> Bool { adapter.flatMap { named.records[$0]?.chat } != nil }

    mutating func encoder(_ adapter: String?, _ options: ChatTemplateOptions) throws -> (ChatEncoder, ChatSettings) {
        if let chats = known[adapter] { return chats }
        var settings = adapter.flatMap { named.records[$0]?.chat } ?? ChatSettings()
        try options.apply(to: &settings, folder: named.tokenizerFolder)
        let encoder = try settings.encoder(named.tokenizer, folder: named.tokenizerFolder, for: named.model)
        known[adapter] = (encoder, settings)
        return (encoder, settings)
    }
}
