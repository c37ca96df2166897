import Support

/// The templates that make an example of a row.
public struct RowTemplates: Sendable {
    public var prompt: Template
    /// `nil` where rows have nothing to be named or written, as for embeddings.
    public var target: Template?
    /// A second text: of a pair that is classified, or the one that belongs to the prompt.
    public var pair: Template?
    /// A text that seems to belong to the prompt and doesn't.
    public var negative: Template?

    public init(prompt: Template, target: Template?, pair: Template? = nil, negative: Template? = nil) {
        (self.prompt, self.target, self.pair, self.negative) = (prompt, target, pair, negative)
    }

    /// Renders one example per row, in order.
    /// An empty target is an error only of tasks to which it says nothing (``RowEncoder``).
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
