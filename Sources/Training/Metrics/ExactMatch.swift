import Foundation

/// Exact match of a prediction with a reference.
package enum ExactMatch {
    static let description = MetricDescription(
        key: "exactMatch", name: "Exact match", explanation: "Outputs identical to the target, in percent."
    ) { texts, bootstrap in
        try bootstrap.mean(
            of: zip(texts.predictions, texts.references).map { matches(prediction: $0, references: $1) ? 1 : 0 })
    }

    /// Equal code points after trimming whitespace at both ends, for at least one reference.
    package static func matches(prediction: String, references: [String]) -> Bool {
        let predicted = trimmed(prediction)
        return references.contains { trimmed($0).unicodeScalars.elementsEqual(predicted.unicodeScalars) }
    }

    /// Equal after ``normalized(_:)``, for at least one reference.
    package static func matchesNormalized(prediction: String, references: [String]) -> Bool {
        let predicted = normalized(prediction)
        return references.contains { normalized($0).unicodeScalars.elementsEqual(predicted.unicodeScalars) }
    }

    /// Lower case, without ASCII punctuation, without the words *a*, *an*, *the*, and with single spaces.
    ///
    /// P. Rajpurkar et al., *SQuAD: 100,000+ Questions for Machine Comprehension of Text*, 2016, and its
    /// evaluation script.
    package static func normalized(_ text: String) -> String {
        var out = String.UnicodeScalarView()
        var word = String.UnicodeScalarView()
        func endWord() {
            out.append(contentsOf: ["a", "an", "the"].contains(String(word)) ? " ".unicodeScalars : word)
            word = String.UnicodeScalarView()
        }
        for scalar in text.lowercased().unicodeScalars where !isPunctuation(scalar) {
            if isLetterOrNumber(scalar) {
                word.append(scalar)
            } else {
                endWord()
                out.append(scalar)
            }
        }
        endWord()
        return out.split { $0.properties.isWhitespace }.map { String($0) }.joined(separator: " ")
    }

    private static func trimmed(_ text: String) -> String { text.trimmingCharacters(in: .whitespacesAndNewlines) }

    private static func isPunctuation(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "!"..."/", ":"..."@", "["..."`", "{"..."~": true
        default: false
        }
    }

    private static func isLetterOrNumber(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter,
            .decimalNumber, .letterNumber, .otherNumber:
            true
        default: false
        }
    }
}
