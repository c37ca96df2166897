import Support

/// What a model is trained on: it reads the prompt and learns to continue with the target.
public struct Example: Sendable, Hashable {
    public var prompt: String
    public var target: String
    /// The second text of a pair, or the one that the prompt's vector is to be near to.
    public var pair: String?
    /// A text that the prompt's vector is to be far from.
    public var negative: String?
    /// Further texts that would be as right as the target, which metrics compare with too.
    public var otherTargets: [String] = []
    /// The row it was rendered from.
    public var row: Row.Location

    public init(prompt: String, target: String, row: Row.Location) {
        (self.prompt, self.target, self.row) = (prompt, target, row)
    }
}

extension Example {
    /// Every text that would be right.
    public var references: [String] { [target] + otherTargets }

    /// One row for each prompt, in order of its first use: rows that share a prompt become one with several right
    /// targets, as data sets with several references a prompt are meant to be scored.
    public static func groupedByPrompt(_ examples: [Example]) -> [Example] {
        var places: [[String?]: Int] = [:]
        var grouped: [Example] = []
        for example in examples {
            if let place = places[[example.prompt, example.pair]] {
                grouped[place].otherTargets.append(example.target)
            } else {
                places[[example.prompt, example.pair]] = grouped.count
                grouped.append(example)
            }
        }
        return grouped
    }
}

extension String {
    /// Whether there is nothing but space.
    var isBlank: Bool { allSatisfy(\.isWhitespace) }
}

/// Renders one example per row, in order.
/// - Throws: ``PEFTError`` as ``Template/render(_:)`` does, and for a target with nothing but whitespace:
///   no loss could come from it.
public func examples(from rows: [Row], prompt: Template, target: Template) throws -> [Example] {
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
