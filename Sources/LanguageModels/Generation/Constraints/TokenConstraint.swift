/// Restricts the tokens of one sequence, token by token. A constraint is a value: a copy is a sequence of its own.
package protocol TokenConstraint: Sendable {
    /// Replaces the contents of `mask` by the tokens that may come next, end tokens included.
    func allow(into mask: inout TokenMask)

    /// Appends a token.
    /// - Throws: ``PEFTError`` if the token is not allowed; the constraint is then unchanged.
    mutating func accept(token: Int) throws

    /// Whether the sequence may end here.
    var isComplete: Bool { get }

    /// Whether the sequence must end here, so that no further step of the model is needed.
    var mustEnd: Bool { get }
}

/// A set of token ids, as bits.
package struct TokenMask: Sendable, Equatable {
    /// The number of ids; those of the set are below it.
    package let vocabulary: Int
    package private(set) var words: [UInt64]

    /// The empty set.
    package init(vocabulary: Int) {
        self.vocabulary = max(0, vocabulary)
        words = [UInt64](repeating: 0, count: (max(0, vocabulary) + 63) / 64)
    }

    package func contains(_ token: Int) -> Bool {
        guard token >= 0, token < vocabulary else { return false }
        return words[token >> 6] >> UInt64(token & 63) & 1 == 1
    }

    /// Adds a token; ids outside the vocabulary are ignored.
    package mutating func insert(_ token: Int) {
        guard token >= 0, token < vocabulary else { return }
        words[token >> 6] |= 1 << UInt64(token & 63)
    }

    package var isEmpty: Bool { words.allSatisfy { $0 == 0 } }

    /// The number of tokens in the set.
    package var count: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }

    /// The tokens in ascending order.
    package var tokens: [Int] {
        var result: [Int] = []
        for (index, word) in words.enumerated() {
            var rest = word
            while rest != 0 {
                result.append(index << 6 | rest.trailingZeroBitCount)
                rest &= rest - 1
            }
        }
        return result
    }

    /// Sets the logits of all other tokens to −∞.
    package func apply(to logits: UnsafeMutableBufferPointer<Float>) {
        for index in logits.indices where !contains(index) { logits[index] = -.infinity }
    }
}
