import Foundation
import LanguageModels
import PEFT
import Support
import Training

/// Texts for many prompts, whose rows may use different adapters: those that can share a batch do.
extension Generate {
    private struct Item {
        let adapter: String?
        let prompt: String
    }

    func generateMany() throws {
        guard !merge else {
            throw PEFTError("--merge was given with several adapters", remedy: "merge one with peft merge")
        }
        guard batchSize >= 1 else {
            throw PEFTError("the batch size is \(batchSize)", remedy: "it has to be at least 1")
        }
        let parameters = try generation.parameters(seed: seed)
        let named = try NamedAdapters(model, adapter)
        let items = try data.map { try rows($0, named) } ?? prompts(named)
        let records = named.records
        let encoded = try items.map { item -> [Int] in
            let record = item.adapter.flatMap { records[$0] }
            let most = maxInput ?? record?.maxInputTokens ?? TemplateOptions.defaultMaxInput
            let (ids, isTruncated) = try RowEncoder(named.tokenizer, for: named.model, maxInputTokens: most)
                .prompt(item.prompt)
            if isTruncated {
                Console.note("a prompt is longer than \(most) tokens and loses its end; --max-input changes that")
            }
            return ids
        }
        let start = ContinuousClock.now
        let display = ProgressDisplay(isQuiet: json)
        let made = try MixedBatch(named.set).generateAll(
            encoded, adapters: items.map(\.adapter), parameters: parameters, batchSize: batchSize
        ) { display.update(share: Double($0) / Double(items.count), "\($0) of \(items.count) rows") }
        display.finish()
        let elapsed = start.duration(to: .now).components
        let seconds = Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
        let results = items.indices.map { index -> JSON in
            [
                "adapter": .string(items[index].adapter ?? NamedAdapters.base),
                "prompt": .string(items[index].prompt),
                "output": .string(named.tokenizer.decode(tokens: made[index])),
                "promptTokens": .integer(encoded[index].count), "tokens": .integer(made[index].count),
            ]
        }
        if json {
            print(JSON.object(["rows": .array(results), "seconds": .number(seconds)]).text())
        } else {
            for result in results {
                print("\(result["adapter"]?.string ?? ""): \(result["output"]?.string ?? "")")
            }
        }
    }

    /// `name:prompt` from the command line.
    private func prompts(_ named: NamedAdapters) throws -> [Item] {
        guard field.isEmpty else {
            throw PEFTError("--field was given with several adapters", remedy: "put rows into a file, with --data")
        }
        guard !text.isEmpty else {
            throw PEFTError("there is no prompt", remedy: "give such as '\(named.set.names[0]):text', or --data")
        }
        return try text.map { text in
            guard let colon = text.firstIndex(of: ":") else {
                throw PEFTError(
                    "the prompt '\(text.prefix(40))' names no adapter",
                    remedy: "write such as '\(named.set.names[0]):\(text.prefix(12))'")
            }
            let prompt = TemplateOptions.unescape(String(text[text.index(after: colon)...]))
            guard !prompt.trimmingCharacters(in: .whitespacesAndNewlines).isEmpty else {
                throw PEFTError("the prompt '\(text)' is empty", remedy: "write a text after the colon")
            }
            return Item(adapter: try named.adapter(named: String(text[..<colon])), prompt: prompt)
        }
    }

    /// The rows of a file: each fills --prompt, or the template that its adapter was trained with.
    private func rows(_ path: String, _ named: NamedAdapters) throws -> [Item] {
        guard text.isEmpty, field.isEmpty else {
            throw PEFTError("--data was given with a text or --field", remedy: "give one of them")
        }
        let rows = try DataSet.read(URL(fileURLWithPath: NSString(string: path).expandingTildeInPath))
        return try rows.map { row in
            let adapter = try named.adapter(of: row, field: adapterField)
            let record = adapter.flatMap { named.records[$0] }
            guard let template = prompt.map(TemplateOptions.unescape) ?? record?.prompt else {
                throw PEFTError(
                    "\(row.location): there is no template for the adapter '\(adapter ?? NamedAdapters.base)'",
                    remedy: "give --prompt, such as --prompt '{text}'")
            }
            return Item(adapter: adapter, prompt: try Template(template).render(row))
        }
    }
}
