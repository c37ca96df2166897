import PEFTSupport

/// The templates that render a row to an example.
public struct RowTemplates: Sendable {
    public var prompt: Template
    /// `nil` for tasks without targets, such as embeddings.
    public var target: Template?
    /// The second text of a pair to classify, or for embeddings the positive text.
    public var pair: Template?
    /// For embeddings, a hard negative.
    public var negative: Template?

    public init(prompt: Template, target: Template?, pair: Template? = nil, negative: Template? = nil) {
        (self.prompt, self.target, self.pair, self.negative) = (prompt, target, pair, negative)
    }

    /// Renders one example per row, in order.
    /// Whether an empty target is an error depends on the task (``RowEncoder``).
    /// - Throws: ``PEFTError`` as ``Template/render(_:)`` does.
    public func examples(from rows: [Row]) throws -> [Example] {
        try rows.map { row in
            var example = Example(
                prompt: try prompt.render(row), target: try target?.render(row) ?? "", row: row.location)
            example.pair = try pair?.render(row)
            example.negative = try negative?.render(row)
            return example
        }
    }
}
