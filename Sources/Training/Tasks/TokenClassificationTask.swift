import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch

/// Token classification: a class for each word. Words and labels are given one per line, as list fields render in
/// templates. Only the first piece of a word contributes to the loss, as in transformers' examples.
struct TokenClassificationTask: HeadTask {
    private let numbers: LabelNumbers

    init(labels: [String]) { numbers = LabelNumbers(labels) }

    /// The words of a prompt, or the labels of a target.
    static func lines(_ text: String) -> [String] {
        text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    }

    func encode(_ example: Example, _ texts: TextEncoder, needsTarget: Bool) throws -> (
        row: TrainingRow, isTruncated: Bool
    ) {
        let words = Self.lines(example.prompt)
        var labels: [String]?
        if needsTarget {
            let own = Self.lines(example.target)
            guard own.count == words.count else {
                throw PEFTError(
                    "\(example.row): \(words.count) words but \(own.count) labels",
                    remedy: "each word needs one label; name list fields in --prompt and --target")
            }
            labels = own
        }
        let around = texts.tokenizer.encode(text: "")
        // A special token in front, or one on each side.
        let lead = Array(around.prefix((around.count + 1) / 2)), tail = Array(around.dropFirst(lead.count))
        var row = TrainingRow(input: lead, target: lead.map { _ in -100 })
        var isTruncated = false
        for (index, word) in words.enumerated() {
            let pieces = texts.tokenizer.encodeWord(word)
            guard !pieces.isEmpty else { continue }
            guard row.input.count + pieces.count + tail.count <= texts.maxTokens else {
                isTruncated = true
                break
            }
            let label = try labels.map { try numbers.number(of: $0[index], in: example.row) } ?? 0
            row.input += pieces
            row.target += [label] + pieces.dropFirst().map { _ in -100 }
        }
        row.input += tail
        row.target += tail.map { _ in -100 }
        guard row.target.contains(where: { $0 >= 0 }) else {
            throw PEFTError(
                "\(example.row): no word has a token", remedy: "add words to the row, or raise --max-input")
        }
        return (row, isTruncated)
    }

    func unknownLabels(of example: Example) -> [String] {
        Self.lines(example.target).filter { numbers[$0] == nil }
    }

    func read(_ outputs: Tensor, rows: [TrainingRow]) throws -> [Prediction] {
        let classes = outputs.argmax(axis: 1).array(Int.self)
        try checkTorchErrors()
        var start = 0
        return rows.map { row in
            let own = row.target.count { $0 >= 0 }
            defer { start += own }
            return .words(classes[start..<(start + own)].map { numbers.labels[$0] })
        }
    }

    func metrics(_ predictions: [Prediction], of examples: [Example]) throws -> [String: MetricValue] {
        let predicted = predictions.map { Self.lines($0.text) }
        // Truncated words have no prediction.
        let right = zip(examples, predicted).map { example, labels in
            Array(Self.lines(example.target).map(numbers.canonical).prefix(labels.count))
        }
        return try evaluateEntities(predictions: predicted, references: right)
    }
}

extension Tokenizer {
    /// Encodes a word within a sentence, without special tokens, with a leading space if the tokenizer marks word starts.
    func encodeWord(_ word: String) -> [Int] {
        let plain = encode(text: "a", addSpecialTokens: false), spaced = encode(text: " a", addSpecialTokens: false)
        let needsSpace = plain != spaced && plain.count == spaced.count
        return encode(text: needsSpace ? " " + word : word, addSpecialTokens: false)
    }
}
