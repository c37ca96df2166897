import Foundation
import PEFTSupport
import Training

/// Model-free outputs to compare with. A trained model that is not significantly better has learned what targets look
/// like rather than to use its prompts.
public enum Baseline: Sendable, Hashable {
    /// The same training target for every prompt: the one most similar to the others.
    case constant
    /// Per value of a field, such as a topic, the training target most similar to the others with that value; the
    /// constant target for a value that no training example has.
    case typical(field: String)
    /// The first line of the prompt.
    case firstLine
    /// The longest line of the prompt.
    case longestLine

    /// - Parameter name: `constant`, `typical(FIELD)`, `first-line` or `longest-line`.
    /// - Throws: ``PEFTError`` for another name.
    package init(_ name: String) throws {
        switch name {
        case "constant": self = .constant
        case "first-line": self = .firstLine
        case "longest-line": self = .longestLine
        case _ where name.hasPrefix("typical(") && name.hasSuffix(")") && name.count > "typical()".count:
            self = .typical(field: String(name.dropFirst("typical(".count).dropLast()))
        default:
            throw PEFTError(
                "unknown baseline '\(name)'", remedy: "use one of constant, typical(FIELD), first-line, longest-line")
        }
    }

    /// Baselines from comma-separated names, without duplicates.
    public static func list(_ names: String) throws -> [Baseline] {
        try names.split(separator: ",").map { try Baseline($0.trimmingCharacters(in: .whitespaces)) }
            .reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    /// What the reader sees.
    public var label: String {
        switch self {
        case .constant: "constant target"
        case .typical(let field): "typical target per \(field)"
        case .firstLine: "first line"
        case .longestLine: "longest line"
        }
    }

    /// Training targets that are compared with each other to find the typical one.
    static let compared = 200

    /// The output for each test example.
    /// - Throws: ``PEFTError`` if there is no training target to choose from.
    func outputs(_ texts: ComparisonData.Texts) throws -> [String] {
        switch self {
        case .firstLine: return texts.test.map { String(Self.lines(of: $0, texts).first ?? "") }
        case .longestLine:
            return texts.test.map { example in
                String(Self.lines(of: example, texts).reduce("") { $0.count < $1.count ? $1 : $0 })
            }
        case .constant, .typical:
            guard let constant = Self.typical(of: texts.training.map(\.target)) else {
                throw PEFTError("the baseline '\(label)' needs training examples", remedy: "provide them with --data")
            }
            guard case .typical(let field) = self else { return texts.test.map { _ in constant } }
            let values = texts.fields[field] ?? [:]
            let groups = Dictionary(grouping: texts.training) { values[$0.row] }
            let typical = groups.compactMapValues { Self.typical(of: $0.map(\.target)) }
            return texts.test.map { example in values[example.row].flatMap { typical[$0] } ?? constant }
        }
    }

    /// The text that shares most words with the others: the largest sum of F1 over sets of words.
    static func typical(of texts: [String]) -> String? {
        let candidates = texts.prefix(compared)
        let words = candidates.map { Set($0.lowercased().split { !$0.isLetter && !$0.isNumber }) }
        func overlap(_ a: Set<Substring>, _ b: Set<Substring>) -> Double {
            2 * Double(a.intersection(b).count) / Double(max(1, a.count + b.count))
        }
        let sums = words.map { word in words.reduce(0) { $0 + overlap(word, $1) } }
        return zip(candidates, sums).reduce(nil as (text: String, sum: Double)?) { best, next in
            if let best, best.sum >= next.1 { return best }
            return (next.0, next.1)
        }?.text
    }

    /// The lines of a prompt without the template's own text around them and without a speaker's label.
    private static func lines(of example: Example, _ texts: ComparisonData.Texts) -> [Substring] {
        texts.templates.prompt.withoutFrame(example.prompt).split(whereSeparator: \.isNewline).map { line in
            guard let colon = line.range(of: ": "), !line[..<colon.lowerBound].contains(" ") else { return line }
            return line[colon.upperBound...]
        }
    }
}

extension BaselineResult {
    /// Measures `baseline` as a model's outputs are measured.
    /// - Throws: ``PEFTError`` where there are no training targets, or no test examples.
    init(_ baseline: Baseline, on texts: ComparisonData.Texts) throws {
        let metrics = try evaluateGeneration(
            predictions: baseline.outputs(texts), references: texts.test.map(\.references),
            prompts: texts.test.map(\.prompt))
        self.init(label: baseline.label, quality: metrics.mapValues { Statistic([$0]) })
    }
}

extension ComparisonData {
    /// - Throws: ``PEFTError`` where baselines make no sense: chats, and models that don't write text.
    func measure(_ baselines: [Baseline], generates: Bool) throws -> [BaselineResult] {
        guard !baselines.isEmpty else { return [] }
        guard generates, case .texts(let texts) = content else {
            throw PEFTError(
                generates
                    ? "--baselines needs prompts and targets, and these examples are chats"
                    : "--baselines needs a model that generates text, and this one does not", remedy: "omit it")
        }
        return try baselines.map { try BaselineResult($0, on: texts) }
    }
}
