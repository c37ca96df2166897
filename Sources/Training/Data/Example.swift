import PEFTSupport
import PEFTTokenizers

/// A training example: the model reads the prompt and learns to generate the target.
public struct Example: Sendable, Hashable {
    /// The model's input.
    public var prompt: String
    /// The text to generate, the label, or the value.
    public var target: String
    /// The second text of a pair, or for embeddings the positive text.
    public var pair: String?
    /// For embeddings, a hard negative.
    public var negative: String?
    /// The languages of prompt and target, for a model that translates between several.
    public var languages = TranslationLanguages()
    /// Further reference texts for metrics.
    package var otherTargets: [String] = []
    /// The row that it was rendered from.
    package var row: Row.Location

    /// An example of your own, which no file contains.
    public init(prompt: String, target: String) {
        self.init(prompt: prompt, target: target, row: Row.Location(file: "an example", number: 1, unit: .row))
    }

    /// - Parameter row: where the example comes from, for errors.
    package init(prompt: String, target: String, row: Row.Location) {
        (self.prompt, self.target, self.row) = (prompt, target, row)
    }
}

extension Example {
    /// All reference texts.
    package var references: [String] { [target] + otherTargets }

    /// Merges examples with the same prompt into one with several references, in order of first occurrence, for datasets
    /// with several references per prompt.
    package static func groupedByPrompt(_ examples: [Example]) -> [Example] {
        var places: [[String?]: Int] = [:]
        var grouped: [Example] = []
        for example in examples {
            let key = [example.prompt, example.pair, example.languages.source, example.languages.target]
            if let place = places[key] {
                grouped[place].otherTargets.append(example.target)
            } else {
                places[key] = grouped.count
                grouped.append(example)
            }
        }
        return grouped
    }
}

extension String {
    /// Whether the text is empty or whitespace only.
    var isBlank: Bool { allSatisfy(\.isWhitespace) }
}

/// Renders one example per row, in order.
/// - Throws: ``PEFTError`` as ``Template/render(_:)`` does, and for a target with nothing but whitespace:
///   it has no tokens that contribute to the loss.
package func examples(from rows: [Row], prompt: Template, target: Template) throws -> [Example] {
    try rows.map { row in
        let example = Example(prompt: try prompt.render(row), target: try target.render(row), row: row.location)
        guard !example.target.isBlank else {
            throw PEFTError(
                "the target \(target.text.debugDescription) is empty for \(row.location)",
                remedy: "fill in the row's fields or remove the row")
        }
        return example
    }
}
