import Foundation
import PEFTSupport

/// A token besides the model's vocabulary, which is matched in text before the other stages.
struct AddedToken: Equatable, Sendable {
    var content: String
    /// Whether decoding can skip it.
    var special = false
    /// Whether it is matched in normalized text, in its own normalized form.
    var normalized = false
    /// Whether it is matched only as a whole word.
    var singleWord = false
    /// Whether it consumes the whitespace to its left.
    var lstrip = false
    /// Whether it consumes the whitespace to its right.
    var rstrip = false
    /// Whether a token of this content that is there already stays special or not as it is.
    var keepsKind = false
}

extension AddedToken: Decodable {
    enum CodingKeys: String, CodingKey {
        case content, special, normalized, lstrip, rstrip
        case singleWord = "single_word"
    }

    init(from decoder: any Swift.Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        content = try fields.decode(String.self, forKey: .content)
        special = try fields.decodeIfPresent(Bool.self, forKey: .special) ?? false
        normalized = try fields.decodeIfPresent(Bool.self, forKey: .normalized) ?? !special
        singleWord = try fields.decodeIfPresent(Bool.self, forKey: .singleWord) ?? false
        lstrip = try fields.decodeIfPresent(Bool.self, forKey: .lstrip) ?? false
        rstrip = try fields.decodeIfPresent(Bool.self, forKey: .rstrip) ?? false
    }
}

/// The added tokens of a tokenizer, and their matching in text.
///
/// Ids are assigned as in the `tokenizers` library: the model's if it has a piece of the same content,
/// else one above those of the model's size and of the tokens before, in the order of the file. Its `id` fields are not what counts there.
struct AddedVocabulary: Sendable {
    /// What a text consists of.
    enum Segment: Equatable {
        case text(Range<Int>)
        case token(Int, Range<Int>)
    }

    private(set) var tokens: [Int: AddedToken] = [:]
    /// Number of tokens that are not in the model.
    private(set) var newTokens = 0
    /// The id of the next token that is added.
    private(set) var nextID = 0
    /// The decoded text of an added token: its normalized form if it has one.
    private var readings: [Int: String] = [:]
    private var ids = ByteTrie()
    private var specials = ByteTrie()
    private var plain = Matcher()
    private var normalized = Matcher()

    /// - Parameter declared: tokens of other files than the vocabulary's, which are added where they are missing. Of
    ///   those that are there it counts only that they are special.
    init(
        _ added: [AddedToken], declared: [AddedToken] = [], model: any TokenizerModel,
        normalizer: (any Normalizer)?, file: String
    ) throws {
        var next = model.vocabularySize
        for (index, token) in (added + declared).enumerated() where !token.content.utf8.isEmpty {
            if index >= added.count, ids.lookUp(token.content.utf8) != nil {
                if token.special, !token.keepsKind { specials.insert(token.content.utf8, value: 1) }
                continue
            }
            let id: Int
            if let known = ids.lookUp(token.content.utf8) ?? model.id(for: token.content) {
                id = known
            } else {
                id = next
                newTokens += 1
            }
            // Ids of a model may leave gaps and so end above its size.
            next = max(next, id + 1)
            tokens[id] = token
            ids.insert(token.content.utf8, value: Int32(id))
            if token.special { specials.insert(token.content.utf8, value: 1) }
        }
        nextID = next
        for (id, token) in tokens.sorted(by: { $0.key < $1.key }) {
            var pattern = Array(token.content.utf8)
            if token.normalized, let normalizer {
                var text = NormalizedText(pattern)
                normalizer.normalize(&text)
                if text.bytes != pattern { readings[id] = String(decoding: text.bytes, as: UTF8.self) }
                pattern = text.bytes
            }
            let before = token.normalized ? normalized.insert(pattern, id: id) : plain.insert(pattern, id: id)
            guard before == ByteTrie.none, !pattern.isEmpty else {
                let problem =
                    pattern.isEmpty ? "normalizes to nothing" : "matches the same text as another added token"
                throw PEFTError("\(file): the added token \(token.content) \(problem)", remedy: "remove one of them")
            }
        }
    }

    func id(for token: String) -> Int? { ids.lookUp(token.utf8) }
    func reading(of id: Int) -> String? { readings[id] ?? tokens[id]?.content }
    func isSpecial(_ token: String) -> Bool { specials.lookUp(token.utf8) != nil }

    /// Cuts text as it was given at the tokens that aren't normalized.
    func segments(of bytes: [UInt8]) -> [Segment] { segments(of: bytes, plain) }

    /// Cuts normalized text at the tokens that are.
    func segments(ofNormalized bytes: [UInt8]) -> [Segment] { segments(of: bytes, normalized) }

    private func segments(of bytes: [UInt8], _ matcher: Matcher) -> [Segment] {
        guard !bytes.isEmpty else { return [] }
        guard !matcher.isEmpty else { return [.text(0..<bytes.count)] }
        var result: [Segment] = []
        /// Where the text after the last token begins.
        var rest = 0
        var index = 0
        while let match = matcher.first(in: bytes, from: index) {
            // A match that is then turned down is passed over all the same.
            index = match.range.upperBound
            guard let token = tokens[match.id] else { continue }
            var (start, end) = (match.range.lowerBound, match.range.upperBound)
            if token.singleWord {
                let touchesLeft = start > 0 && bytes.scalar(before: start).scalar.isWord
                let touchesRight = end < bytes.count && bytes.scalar(at: end).scalar.isWord
                if touchesLeft || touchesRight { continue }
            }
            if token.lstrip {
                while start > rest {
                    let (scalar, length) = bytes.scalar(before: start)
                    guard scalar.isWhitespace else { break }
                    start -= length
                }
            }
            if token.rstrip {
                while end < bytes.count {
                    let (scalar, length) = bytes.scalar(at: end)
                    guard scalar.isWhitespace else { break }
                    end += length
                }
            }
            if rest < start { result.append(.text(rest..<start)) }
            result.append(.token(match.id, start..<end))
            rest = end
        }
        if rest < bytes.count { result.append(.text(rest..<bytes.count)) }
        return result
    }

    /// Finds the leftmost, then longest, of many strings.
    private struct Matcher: Sendable {
        private var trie = ByteTrie()
        private var begins = [Bool](repeating: false, count: 256)
        /// What all patterns begin with, such as "<" or "▁<".
        private var beginning: [UInt8] = []
        private(set) var isEmpty = true

        mutating func insert(_ pattern: [UInt8], id: Int) -> Int32? {
            guard let first = pattern.first else { return nil }
            beginning = isEmpty ? pattern : zip(beginning, pattern).prefix { $0 == $1 }.map { $0.0 }
            begins[Int(first)] = true
            isEmpty = false
            return trie.insert(pattern, value: Int32(id))
        }

        /// The next place where a pattern may begin, or the end.
        private func nextBeginning(in bytes: [UInt8], from start: Int) -> Int {
            bytes.withUnsafeBufferPointer { bytes in
                if let last = beginning.last { return next(beginning, last, in: bytes, from: start) }
                return begins.withUnsafeBufferPointer { begins in
                    var index = start
                    while index < bytes.count, !begins[Int(bytes[index])] { index += 1 }
                    return index
                }
            }
        }

        /// The same where all begin alike. The last byte is looked for, which tells more: "▁" begins every word.
        private func next(
            _ beginning: [UInt8], _ last: UInt8, in bytes: UnsafeBufferPointer<UInt8>, from start: Int
        ) -> Int {
            var end = start + beginning.count - 1
            while end < bytes.count, let base = bytes.baseAddress,
                let found = memchr(base + end, Int32(last), bytes.count - end)
            {
                end = UnsafeRawPointer(found) - UnsafeRawPointer(base)
                let first = end + 1 - beginning.count
                if beginning.indices.allSatisfy({ bytes[first + $0] == beginning[$0] }) { return first }
                end += 1
            }
            return bytes.count
        }

        func first(in bytes: [UInt8], from index: Int) -> (range: Range<Int>, id: Int)? {
            var start = index
            while start < bytes.count {
                start = nextBeginning(in: bytes, from: start)
                guard start < bytes.count else { break }
                defer { start += 1 }
                var node = ByteTrie.root
                var end = start
                var found: (range: Range<Int>, id: Int)?
                while end < bytes.count {
                    node = trie.child(of: node, bytes[end])
                    if node == ByteTrie.none { break }
                    end += 1
                    let id = trie.value(at: node)
                    if id != ByteTrie.none { found = (start..<end, Int(id)) }
                }
                if let found { return found }
            }
            return nil
        }
    }
}
