import PEFTSupport
import PEFTTokenizers

/// A vocabulary in the order of its tokens' bytes, so that an automaton reads common beginnings once.
package struct ConstraintVocabulary: Sendable {
    /// The number of ids that a model has logits for.
    package let size: Int
    /// The tokens that end a sequence. They stand for no text.
    package let endTokens: Set<Int>
    /// The bytes of each token by id; empty for tokens that are never allowed.
    let bytes: [[UInt8]]
    /// The ids of tokens with bytes, sorted by their bytes.
    let order: [Int]
    /// For each entry of `order`, how many bytes it begins with like the one before.
    let common: [Int]
    /// Length of the longest token in bytes.
    let longest: Int

    /// - Parameters:
    ///   - bytes: the bytes of each token, by id; tokens without bytes are never allowed.
    ///   - endTokens: tokens that end a sequence.
    /// - Throws: ``PEFTError`` if a byte of JSON text has no token, so that a text could get stuck.
    package init(bytes: [[UInt8]], endTokens: Set<Int>) throws {
        size = bytes.count
        self.endTokens = endTokens.filter { $0 >= 0 && $0 < bytes.count }
        self.bytes = bytes.enumerated().map { endTokens.contains($0) ? [] : $1 }
        let all = self.bytes
        order = all.indices.filter { !all[$0].isEmpty }
            .sorted { all[$0].lexicographicallyPrecedes(all[$1]) || (all[$0] == all[$1] && $0 < $1) }
        var common: [Int] = []
        var before: [UInt8] = []
        for id in order {
            common.append(zip(before, all[id]).prefix { $0 == $1 }.count)
            before = all[id]
        }
        self.common = common
        longest = all.map(\.count).max() ?? 0
        var isSingle = [Bool](repeating: false, count: 256)
        for token in all where token.count == 1 { isSingle[Int(token[0])] = true }
        // Every text is then a sequence of tokens, and no prefix is a dead end.
        let needed = Array(0x20...0x7E) + Array(0x80...0xBF) + Array(0xC2...0xF4)
        guard let missing = needed.first(where: { !isSingle[$0] }) else { return }
        let code = String(missing, radix: 16, uppercase: true)
        throw PEFTError(
            "the vocabulary has no token for the byte 0x\(code), so it can't write every JSON text",
            remedy: "use a model whose tokenizer is byte-level or has byte fallback")
    }

    /// - Parameters:
    ///   - size: the number of ids that the model has logits for.
    ///   - endTokens: tokens that end a sequence.
    package init(_ tokenizer: Tokenizer, size: Int, endTokens: Set<Int>) throws {
        try self.init(bytes: tokenizer.tokenBytes(count: size), endTokens: endTokens)
    }
}
