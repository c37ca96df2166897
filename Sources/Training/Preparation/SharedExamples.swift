import LanguageModels
import PEFTSupport

/// Counts evaluation examples that are also in the training data (contamination).
package enum SharedExamples {
    /// A warning; `nil` if there are none.
    /// - Parameter name: the split of the examples, such as `test`.
    package static func note(_ shared: Int, of all: Int, _ name: String) -> String? {
        guard shared > 0 else { return nil }
        return
            "warning: \(grouped(shared)) of the \(grouped(all)) \(name) examples \(shared == 1 ? "is" : "are") also in the training data; remove \(shared == 1 ? "it" : "them") from one of the two"
    }

    /// How many of `examples` are equal to one of `training`, token by token.
    package static func count(_ examples: [EncodedExample], in training: EncodedRows) -> Int {
        // Compare only examples of equal length, as the training examples may be in a file.
        let lengths = Set(examples.map(\.length))
        var known: Set<Int> = []
        for (row, length) in training.lengths.enumerated() where lengths.contains(length) {
            known.insert(hash(training[row]))
        }
        return examples.count { known.contains(hash($0)) }
    }

    /// The same for examples before tokenization.
    package static func count(_ examples: [Example], in training: [Example]) -> Int {
        let known = Set(training.map(hash))
        return examples.count { known.contains(hash($0)) }
    }

    /// The same for conversations.
    package static func count(_ conversations: [Conversation], in training: [Conversation]) -> Int {
        let known = Set(training.map(hash))
        return conversations.count { known.contains(hash($0)) }
    }

    private static func hash(_ example: EncodedExample) -> Int {
        var hasher = Hasher()
        hasher.combine(example.input)
        hasher.combine(example.target)
        hasher.combine(example.row.candidates)
        hasher.combine(example.row.score)
        return hasher.finalize()
    }

    private static func hash(_ example: Example) -> Int {
        var hasher = Hasher()
        hasher.combine([example.prompt, example.target, example.pair])
        return hasher.finalize()
    }

    private static func hash(_ conversation: Conversation) -> Int {
        var hasher = Hasher()
        for message in conversation.messages {
            for (key, value) in message.dictionary?.entries ?? [] {
                hasher.combine(key.text)
                hasher.combine(value.text ?? "\(value)")
            }
        }
        return hasher.finalize()
    }
}
