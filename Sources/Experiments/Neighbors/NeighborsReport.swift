import Foundation
import Support

/// What `peft neighbors` found.
public struct NeighborsReport: Codable, Sendable {
    public var version: String
    public var adapter: String
    public var method: String
    public var model: String
    public var taskWords: [String]
    public var tokens: [Token]
    /// Mean cosine among each virtual token's five nearest words, over the virtual tokens.
    public var clustering: Statistic
    /// The same of five words at random.
    public var randomClustering: Statistic
    /// The same of the prompt before training; `nil` where it can't be made again.
    public var untrainedClustering: Statistic?

    public struct Token: Codable, Sendable {
        /// Place in the prompt, from 1.
        public var name: String
        /// The nearest by cosine, with it, and by distance, with that.
        public var cosine: [Neighbor]
        public var distance: [Neighbor]
        public var clustering: Double
        /// In the picture.
        public var place: [Double]
        public var neighborPlaces: [[Double]]
    }

    public struct Neighbor: Codable, Sendable {
        public var id: Int
        /// As the vocabulary has it.
        public var text: String
        public var value: Double
        /// Whether it is one of ``taskWords``.
        public var namesTask: Bool
    }

    /// What was found, in sentences.
    func sentences(_ numbers: NumberFormat) -> [String] {
        func figure(_ value: Statistic) -> String {
            numbers.decimal(value.mean, places: 3) + (value.sd.map { " ± " + numbers.decimal($0, places: 3) } ?? "")
        }
        var sentences: [String] = []
        var against = "\(figure(randomClustering)) for words at random"
        if let untrained = untrainedClustering { against += ", \(figure(untrained)) before training" }
        sentences.append(
            "The five words nearest to a virtual token have a mean cosine of \(figure(clustering)) among each other (\(against))."
        )
        let margin = clustering.mean - randomClustering.mean
        let isTight = margin > 2 * (randomClustering.sd ?? 0)
        let beginning = untrainedClustering.map { clustering.mean - $0.mean }
        let error = clustering.sd.map { $0 / Double(max(1, clustering.values.count)).squareRoot() } ?? 0
        if !isTight {
            sentences.append(
                "That is no closer than chance: the prompt has not settled near groups of related words.")
        } else if let beginning, beginning <= 2 * error {
            sentences.append("The neighbors of any point cluster, and training did not tighten that.")
        } else {
            sentences.append(
                "The words belong together more than chance\(beginning == nil ? "" : " and more than before training") explains."
            )
        }
        let marked = tokens.filter { $0.cosine.contains(where: \.namesTask) }.count
        if !taskWords.isEmpty {
            sentences.append(
                "\(marked) of \(tokens.count) virtual tokens have a word that names the task (\(taskWords.prefix(8).joined(separator: ", "))) among their nearest."
            )
        }
        return sentences
    }

    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return try encoder.encode(self)
    }

    /// The lists for a terminal; words that name the task stand in brackets.
    public func table() -> String {
        let numbers = NumberFormat.terminal
        func list(_ neighbours: [Neighbor]) -> String {
            neighbours.map { word in
                let text = NeighborsReport.printable(word.text)
                return (word.namesTask ? "[\(text)]" : text) + " " + numbers.decimal(word.value, places: 2)
            }.joined(separator: "  ")
        }
        var lines = ["\(method) of \(adapter), over \(model)", ""]
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

    /// A piece of vocabulary that can't steer a terminal.
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
