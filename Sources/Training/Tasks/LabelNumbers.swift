import LanguageModels
import PEFTSupport

/// Class indices by label.
struct LabelNumbers: Sendable {
    let labels: [String]
    private let numbers: [String: Int]
    /// Whether targets may be class indices: no label is a number itself.
    private let areNamed: Bool

    init(_ labels: [String]) {
        self.labels = labels
        areNamed = !labels.contains { Int($0) != nil }
        numbers = Dictionary(labels.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// The class index of a label, or of a target that is the index itself, as in transformers' `label2id`.
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
            areNamed
            ? "classes may be named or numbered 0 to \(labels.count - 1)"
            : "remove the row, or include its class in training"
        throw PEFTError(
            "\(row): '\(label)' is not one of the \(labels.count) classes (\(shown))", remedy: hint ?? range)
    }

    /// The label's canonical name.
    func canonical(_ label: String) -> String { self[label].map { labels[$0] } ?? label }

    /// Labels sorted by value if all are integers, else alphabetically.
    static func sorted(_ labels: some Sequence<String>) -> [String] {
        let labels = labels.sorted()
        let integers = labels.compactMap { Int($0) }
        guard integers.count == labels.count else { return labels }
        return zip(labels, integers).sorted { ($0.1, $0.0) < ($1.1, $1.0) }.map(\.0)
    }
}

extension ModelHead {
    /// The meaning of class indices in targets, such as `0 is 'negative'`; `nil` if the targets are labels.
    package func classIndexMeaning(in examples: [Example]) -> String? {
        guard task == .classification, labels.enumerated().contains(where: { $1 != "LABEL_\($0)" }) else {
            return nil
        }
        let numbers = LabelNumbers(labels)
        let targets = LabelNumbers.sorted(Set(examples.map(\.target)).filter { numbers.canonical($0) != $0 })
        guard !targets.isEmpty else { return nil }
        let meanings = targets.prefix(4).map { "\($0) is '\(numbers.canonical($0))'" }
        return meanings.joined(separator: ", ") + (targets.count > 4 ? ", …" : "")
    }

    /// A note for the user on class indices in targets; `nil` if the targets are labels.
    package func classIndexNote(for examples: [Example]) -> String? {
        classIndexMeaning(in: examples).map { "the data has class indices: \($0)" }
    }
}
