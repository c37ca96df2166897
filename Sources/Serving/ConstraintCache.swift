import Foundation
import LanguageModels
import PEFTTokenizers

/// Keeps the constraints of recent response formats, as clients repeat their schemas. Copies of a constraint share what
/// they learn about the vocabulary.
final class ConstraintCache: @unchecked Sendable {
    private struct Entry {
        let format: ResponseFormat
        let endTokens: Set<Int>
        let constraint: JSONConstraint
    }

    private static let limit = 32
    private let lock = NSLock()
    /// Vocabularies by their end tokens; requests may add some.
    private var vocabularies: [Set<Int>: ConstraintVocabulary] = [:]
    /// The latest last.
    private var entries: [Entry] = []

    /// - Throws: ``PEFTError`` for an unsupported schema, and a vocabulary that can't write every JSON text.
    func constraint(_ format: ResponseFormat, _ tokenizer: Tokenizer, size: Int, endTokens: Set<Int>) throws
        -> JSONConstraint
    {
        lock.lock()
        defer { lock.unlock() }
        if let index = entries.firstIndex(where: { $0.endTokens == endTokens && $0.format == format }) {
            entries.append(entries.remove(at: index))
            return entries[entries.count - 1].constraint
        }
        let known = vocabularies[endTokens]
        let vocabulary = try known ?? ConstraintVocabulary(tokenizer, size: size, endTokens: endTokens)
        if vocabularies.count >= Self.limit { vocabularies = [:] }
        vocabularies[endTokens] = vocabulary
        let constraint = try JSONConstraint(format, vocabulary)
        if entries.count >= Self.limit { entries.removeFirst() }
        entries.append(Entry(format: format, endTokens: endTokens, constraint: constraint))
        return constraint
    }
}
