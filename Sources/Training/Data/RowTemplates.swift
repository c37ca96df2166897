import PEFTSupport
import PEFTTokenizers

/// The templates that render a row to an example.
package struct RowTemplates: Sendable {
    package var prompt: Template
    /// `nil` for tasks without targets, such as embeddings.
    package var target: Template?
    /// The second text of a pair to classify, or for embeddings the positive text.
    package var pair: Template?
    /// For embeddings, a hard negative.
    package var negative: Template?
    /// Languages of prompt and target, which may be fields.
    package var sourceLanguage: Template?
    package var targetLanguage: Template?

    package init(prompt: Template, target: Template?, pair: Template? = nil, negative: Template? = nil) {
        (self.prompt, self.target, self.pair, self.negative) = (prompt, target, pair, negative)
    }

    /// The languages of a row's prompt and target.
    package func languages(of row: Row) throws -> TranslationLanguages {
        TranslationLanguages(source: try sourceLanguage?.render(row), target: try targetLanguage?.render(row))
    }

    /// Renders one example per row, in order.
    /// Whether an empty target is an error depends on the task (``RowEncoder``).
    /// - Throws: ``PEFTError`` as ``Template/render(_:)`` does.
    package func examples(from rows: [Row]) throws -> [Example] {
        try rows.map { row in
            var example = Example(
                prompt: try prompt.render(row), target: try target?.render(row) ?? "", row: row.location)
            example.pair = try pair?.render(row)
            example.negative = try negative?.render(row)
            example.languages = try languages(of: row)
            return example
        }
    }
}
