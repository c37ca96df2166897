import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

/// Sample data for measuring an adapter's effect: a file, or built-in sentences.
enum SampleRows {
    static let sentences = [
        "The train was late, so we missed the beginning of the film.",
        "She asked whether the shop would be open on Sunday morning.",
        "In winter the lake freezes and children skate across it.",
        "Please send me the report before the meeting starts at nine.",
        "He repaired the old bicycle and gave it to his neighbour.",
        "A good teacher listens before she answers a question.",
        "The price of bread has doubled since the harvest failed.",
        "They painted the kitchen yellow because it gets little light.",
    ]

    /// - Parameters:
    ///   - data: a data file; `nil` for the built-in sentences.
    ///   - record: the templates that the adapter was trained with.
    ///   - invocation: tokens that precede each of the built-in sentences, for an adapter that acts after them only.
    static func batches(
        _ data: String?, _ templates: TemplateOptions, limit: Int, model: any LanguageModel, tokenizer: Tokenizer,
        record: TrainingRecord?, invocation: [Int] = [], device: Device
    ) throws -> [TrainingBatch] {
        var encoded: [EncodedExample]
        if let data {
            let settings = try templates.settings().recognized([data], generates: model.generates, record: record)
            let templates = try settings.templates(record: record)
            try require("--limit", limit)
            let examples = try templates.examples(from: DataSet.read(DataSource.all([data]), limit: limit))
            encoded = try RowEncoder(tokenizer, for: model, maxInputTokens: settings.inputLimit(record))
                .encode(examples).examples
        } else {
            encoded = sentences.map { sentence in
                // The vocabulary may be smaller than the tokenizer's.
                let ids = tokenizer.encode(text: sentence).filter { $0 < model.vocabularySize }
                if !model.generates { return EncodedExample(input: ids, target: [0]) }
                // The second half of a sentence is the target of the first.
                let half = max(1, ids.count / 2)
                return EncodedExample(input: invocation + ids[..<half], target: Array(ids[half...]))
            }.filter { !$0.target.isEmpty }
        }
        encoded = Array(encoded.prefix(max(1, limit)))
        return stride(from: 0, to: encoded.count, by: 4).map { start in
            model.batch(Array(encoded[start..<min(start + 4, encoded.count)]))
        }
    }
}
