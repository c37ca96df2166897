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
    /// - Throws: ``PEFTError`` as ``Template/render(_:)`` does, and for an empty target.
    public func examples(from rows: [Row]) throws -> [Example] {
        let plain = try Template("")
        var made =
            try target.map { try Training.examples(from: rows, prompt: prompt, target: $0) }
            ?? rows.map { Example(prompt: try prompt.render($0), target: try plain.render($0), row: $0.location) }
        for index in made.indices {
            made[index].pair = try pair?.render(rows[index])
            made[index].negative = try negative?.render(rows[index])
        }
        return made
    }
}
