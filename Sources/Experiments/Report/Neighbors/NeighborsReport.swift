import Foundation
import PEFTSupport

/// The result of `peft neighbors`: the vocabulary entries nearest to each virtual token of a soft prompt.
package struct NeighborsReport: Codable, Sendable {
    package var version: String
    package var adapter: String
    package var method: String
    package var model: String
    package var taskWords: [String]
    package var tokens: [Token]
    /// Mean pairwise cosine similarity of each virtual token's five nearest words, over the virtual tokens.
    package var clustering: Statistic
    /// The same for five random words.
    package var randomClustering: Statistic
    /// The same for the prompt before training; `nil` where its initialization cannot be reproduced.
    package var untrainedClustering: Statistic?

    package struct Token: Codable, Sendable {
        /// Position in the prompt, from 1.
        package var name: String
        /// The nearest words by cosine similarity, and by Euclidean distance.
        package var cosine: [Neighbor]
        package var distance: [Neighbor]
        package var clustering: Double
        /// Coordinates on the map: the first two principal components.
        package var place: [Double]
        package var neighborPlaces: [[Double]]
    }

    package struct Neighbor: Codable, Sendable {
        package var id: Int
        /// The vocabulary entry, tokenizer markers included.
        package var text: String
        package var value: Double
        /// Whether it is one of ``taskWords``.
        package var namesTask: Bool
    }

    /// The result in sentences.
    func sentences(_ numbers: NumberFormat) -> [String] {
        func figure(_ value: Statistic) -> String {
            numbers.decimal(value.mean, places: 3) + (value.sd.map { " ± " + numbers.decimal($0, places: 3) } ?? "")
        }
        var sentences: [String] = []
        var references = "random words: \(figure(randomClustering))"
        if let untrained = untrainedClustering { references += ", before training: \(figure(untrained))" }
        sentences.append(
            "The five nearest words of a virtual token have a mean pairwise cosine similarity of \(figure(clustering)) (\(references))."
        )
        let margin = clustering.mean - randomClustering.mean
        let isTight = margin > 2 * (randomClustering.sd ?? 0)
        let beginning = untrainedClustering.map { clustering.mean - $0.mean }
        let error = clustering.sd.map { $0 / Double(max(1, clustering.values.count)).squareRoot() } ?? 0
        if !isTight {
            sentences.append(
                "That is no higher than chance: the virtual tokens are not near groups of related words.")
        } else if let beginning, beginning <= 2 * error {
            sentences.append("The neighbors are no closer to each other than before training.")
        } else {
            sentences.append(
                "The neighbors are closer to each other than random words\(beginning == nil ? "" : " and than before training")."
            )
        }
        let marked = tokens.filter { $0.cosine.contains(where: \.namesTask) }.count
        if !taskWords.isEmpty {
            sentences.append(
                "\(marked) of \(tokens.count) virtual tokens have a task word (\(taskWords.prefix(8).joined(separator: ", "))) among their nearest neighbors."
            )
        }
        return sentences
    }

    /// The report as JSON, keys sorted.
    package func json() throws -> Data { try ReportJSON.data(self) }

    /// The nearest words for a terminal; task words are in brackets.
    package func table() -> String {
        let numbers = NumberFormat.terminal
        func list(_ neighbors: [Neighbor]) -> String {
            neighbors.map { word in
                let text = NeighborsReport.printable(word.text)
                return (word.namesTask ? "[\(text)]" : text) + " " + numbers.decimal(word.value, places: 2)
            }.joined(separator: "  ")
        }
        var lines = ["\(adapter): \(method), base model \(model)", ""]
        let width = tokens.map(\.name.count).max() ?? 0
        for token in tokens {
            let name = String(repeating: " ", count: width - token.name.count) + token.name
            lines.append("\(name)  cosine    \(list(token.cosine))")
            lines.append("\(String(repeating: " ", count: width))  distance  \(list(token.distance))")
        }
        lines.append("")
        lines += sentences(numbers)
        return lines.joined(separator: "\n") + "\n"
    }

    /// A vocabulary entry with control characters replaced, safe to print on a terminal.
    static func printable(_ text: String) -> String {
        String(
            String.UnicodeScalarView(
                text.unicodeScalars.map { scalar in
                    switch scalar.properties.generalCategory {
                    case .control, .format, .surrogate, .lineSeparator, .paragraphSeparator: "·"
                    default: scalar
                    }
                }))
    }
}
