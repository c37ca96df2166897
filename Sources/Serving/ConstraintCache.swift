import Foundation
import LanguageModels
import PEFTTokenizers

/// Keeps the constraints of recent response formats, as clients repeat their schemas. Copies of a constraint share what
/// they learn about the vocabulary.
final class ConstraintCache: @unchecked Sendable {
    private struct Entry {
        let format: ResponseFormat
        let vocabulary: VocabularyKey
        let constraint: JSONConstraint
    }

    private struct VocabularyKey: Hashable {
        let tokenizer: ObjectIdentifier
        let endTokens: Set<Int>
    }

    private static let limit = 32
    private let lock = NSLock()
    /// Vocabularies by tokenizer and end tokens; requests may add some. Tokenizers stay in memory, so that none takes
    /// the place of another.
    private var vocabularies: [VocabularyKey: (tokenizer: SharedTokenizer, ConstraintVocabulary)] = [:]
    /// The latest last.
    private var entries: [Entry] = []

    /// - Throws: ``PEFTError`` for an unsupported schema, and a vocabulary that can't write every JSON text.
    func constraint(_ format: ResponseFormat, _ tokenizer: SharedTokenizer, size: Int, endTokens: Set<Int>) throws
        -> JSONConstraint
    {
        let key = VocabularyKey(tokenizer: ObjectIdentifier(tokenizer), endTokens: endTokens)
        lock.lock()
        defer { lock.unlock() }
        if let index = entries.firstIndex(where: { $0.vocabulary == key && $0.format == format }) {
            entries.append(entries.remove(at: index))
            return entries[entries.count - 1].constraint
        }
        let known = vocabularies[key]?.1
        let vocabulary =
            try known ?? ConstraintVocabulary(tokenizer.tokenizer, size: size, endTokens: endTokens)
        if vocabularies.count >= Self.limit { (vocabularies, entries) = ([:], []) }
        vocabularies[key] = (tokenizer, vocabulary)
        let constraint = try JSONConstraint(format, vocabulary)
        if entries.count >= Self.limit { entries.removeFirst() }
        entries.append(Entry(format: format, vocabulary: key, constraint: constraint))
        return constraint
    }
}
