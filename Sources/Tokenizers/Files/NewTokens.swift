import Foundation
import PEFTSupport

/// More tokens for a tokenizer, as the `add_tokens` of transformers adds them: they match anywhere in normalized text,
/// decoding keeps them, and their ids follow those of the tokenizer.
package struct NewTokens {
    /// The tokenizer's files with the new tokens.
    package let files: [FolderFile]
    /// The tokens that the tokenizer lacked, with their ids.
    package let tokens: [(text: String, id: Int)]
    /// The number of tokens that the tokenizer had already, or that the list repeats.
    package let known: Int

    /// Parses a list with one token per line; empty lines are skipped.
    /// - Throws: ``PEFTError`` if the file can't be read or lists no token.
    package static func list(_ file: URL) throws -> [String] {
        let bytes = try [UInt8](readFile(file))
        guard var text = String(validating: bytes, as: UTF8.self) else {
            throw PEFTError("\(file.path) is not valid UTF-8", remedy: "save it as UTF-8, one token per line")
        }
        if text.unicodeScalars.first == "\u{FEFF}" { text.unicodeScalars.removeFirst() }
        let lines = text.unicodeScalars.split { $0 == "\n" || $0 == "\r" }.map {
            String(String.UnicodeScalarView($0))
        }
        guard !lines.isEmpty else { throw PEFTError("\(file.path) lists no tokens", remedy: "write one per line") }
        return lines
    }

    /// - Parameters:
    ///   - list: the tokens to add.
    ///   - folder: the tokenizer's folder.
    /// - Throws: ``PEFTError`` if the tokenizer has no `tokenizer.json`, or a token can't be told from another one.
    package init(_ list: [String], in folder: URL) throws {
        let tokenizer = try Tokenizer.load(folder: folder)
        let file = folder.appendingPathComponent("tokenizer.json")
        guard !GGUFHeader.isName(folder), FileManager.default.fileExists(atPath: file.path) else {
            throw PEFTError(
                "tokens can't be added to the tokenizer of \(folder.path), which has no tokenizer.json",
                remedy: "save it as tokenizer.json with the save_pretrained of transformers")
        }
        var seen: Set<[UInt8]> = []
        let new = list.filter { tokenizer.id(for: $0) == nil && seen.insert(Array($0.utf8)).inserted }
        known = list.count - new.count
        tokens = new.enumerated().map { ($1, tokenizer.added.nextID + $0) }
        let text = try Self.adding(tokens, to: [UInt8](readFile(file)), name: file.path)
        let added = Tokenizer(
            try TokenizerFile(Data(text.utf8), declared: SpecialTokens(folder: folder).declared, name: file.path),
            try SpecialTokens(folder: folder))
        if let (token, id) = tokens.first(where: { added.id(for: $0.text) != $0.id }) {
            throw PEFTError(
                "the new token '\(token)' gets the id \(added.id(for: token) ?? -1) instead of \(id) in \(file.path)",
                remedy:
                    "load and save the tokenizer with transformers, which adds the tokens that its other files name")
        }
        files = try Tokenizer.files(in: folder).map {
            $0.name == "tokenizer.json" ? FolderFile(name: $0.name, text: text) : $0
        }
    }

    /// Inserts the tokens at the end of `added_tokens`; all other bytes stay as they are.
    private static func adding(_ tokens: [(text: String, id: Int)], to bytes: [UInt8], name: String) throws -> String
    {
        let entries = tokens.map { token in
            JSON.object([
                "id": .integer(token.id), "content": .string(token.text), "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": true, "special": false,
            ]).text(indent: nil)
        }.joined(separator: ",")
        // Start of the file's object, and of the list with whether it is empty.
        var (list, isEmpty, isThere): (Range<Int>, Bool, Bool) = (0..<0, true, false)
        do {
            var scanner = JSONScanner(bytes)
            let start = scanner.index + 1
            list = start..<start
            try scanner.members { scanner in
                guard scanner.text.elementsEqual("added_tokens".utf8), scanner.peek == UInt8(ascii: "[") else {
                    return try scanner.skipValue()
                }
                let begin = scanner.index
                isEmpty = true
                try scanner.elements {
                    isEmpty = false
                    try $0.skipValue()
                }
                (list, isThere) = (begin..<scanner.index, true)
            }
        } catch let failure as JSONScanner.Failure {
            throw PEFTError(
                "\(name): \(failure.message) at byte \(failure.offset)",
                remedy: "the file may be truncated or damaged")
        }
        guard !tokens.isEmpty else { return String(decoding: bytes, as: UTF8.self) }
        guard isThere else {
            return String(decoding: bytes[..<list.lowerBound], as: UTF8.self) + "\"added_tokens\":[\(entries)],"
                + String(decoding: bytes[list.lowerBound...], as: UTF8.self)
        }
        guard let end = bytes[list].lastIndex(of: UInt8(ascii: "]")) else {
            throw PEFTError("\(name): 'added_tokens' is not a list", remedy: "the file may be damaged")
        }
        return String(decoding: bytes[..<end], as: UTF8.self) + (isEmpty ? "" : ",") + entries
            + String(decoding: bytes[end...], as: UTF8.self)
    }
}
