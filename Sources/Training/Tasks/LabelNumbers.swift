import LanguageModels
import Support

/// Numbers of labels by name.
struct LabelNumbers: Sendable {
    let labels: [String]
    private let numbers: [String: Int]
    /// Whether rows may say a label by its number: no label is a number itself.
    private let areNamed: Bool

    init(_ labels: [String]) {
        self.labels = labels
        areNamed = !labels.contains { Int($0) != nil }
        numbers = Dictionary(labels.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// The number of a label; many data sets have that itself, as transformers' `label2id` counts.
    subscript(label: String) -> Int? {
        if let number = numbers[label] { return number }
        guard areNamed, let number = Int(label), labels.indices.contains(number) else { return nil }
        return number
    }

    func number(of label: String, in row: Row.Location) throws -> Int {
        if let number = self[label] { return number }
        let shown = labels.prefix(8).joined(separator: ", ") + (labels.count > 8 ? ", …" : "")
        let hint = nearestName(to: label, in: labels).map { "did you mean '\($0)'?" }
        let range =
            areNamed ? "classes may be named or numbered 0 to \(labels.count - 1)" : "drop the row, or train with it"
        throw PEFTError(
            "\(row): '\(label)' is not one of the \(labels.count) classes (\(shown))", remedy: hint ?? range)
    }

    /// The label as the classes name it.
    func canonical(_ label: String) -> String { self[label].map { labels[$0] } ?? label }

    /// Labels in the order of their numbers where all are integers, else of the alphabet.
    static func sorted(_ labels: some Sequence<String>) -> [String] {
        let labels = labels.sorted()
        let integers = labels.compactMap { Int($0) }
        guard integers.count == labels.count else { return labels }
        return zip(labels, integers).sorted { ($0.1, $0.0) < ($1.1, $1.0) }.map(\.0)
    }
}

extension ModelHead {
    /// What the numbers that examples have in place of labels stand for, such as `0 is 'negative'`; `nil` where they have
    /// labels.
    public func meaningOfNumbers(in examples: [Example]) -> String? {
        guard task == .classification, labels.enumerated().contains(where: { $1 != "LABEL_\($0)" }) else {
            return nil
        }
        let numbers = LabelNumbers(labels)
        let targets = LabelNumbers.sorted(Set(examples.map(\.target)).filter { numbers.canonical($0) != $0 })
        guard !targets.isEmpty else { return nil }
        let meanings = targets.prefix(4).map { "\($0) is '\(numbers.canonical($0))'" }
        return meanings.joined(separator: ", ") + (targets.count > 4 ? ", …" : "")
    }
}
