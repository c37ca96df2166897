import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTTokenizers

/// Tokens that are added to a tokenizer's files get the ids and texts that the `add_tokens` of Python's transformers gives
/// them (`Fixtures/make_new_token_fixtures.py`).
@Suite struct NewTokenTests {
    struct Cases: Decodable {
        struct Case: Decodable {
            let name: String
            let added: Int
            let size: Int
            let first: Int
            let tokens: [Int]
            let ids: [[Int]]
            let decoded: [String]
        }
        let tokenizer: JSON
        let list: [String]
        let texts: [String]
        let cases: [Case]
    }

    /// Copies a tokenizer into a folder.
    private func place(_ name: String, _ content: Cases, in folder: URL) throws {
        guard name != "bytes" else {
            return try AtomicFile.write(
                content.tokenizer.text(), to: folder.appendingPathComponent("tokenizer.json"))
        }
        for file in try Tokenizer.files(in: Folders.tinyT5) { try file.write(into: folder) }
    }

    @Test(arguments: ["bytes", "tiny-t5"]) func addedTokensAreThoseOfTransformers(name: String) throws {
        let content = try Fixture.read("new-tokens", as: Cases.self)
        let expected = try #require(content.cases.first { $0.name == name })
        try withTemporaryFolder { folder in
            let (before, after) = (folder.appendingPathComponent("before"), folder.appendingPathComponent("after"))
            for url in [before, after] {
                try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
            }
            try place(name, content, in: before)
            let new = try NewTokens(content.list, in: before)
            #expect(new.tokens.count == expected.added && new.known == content.list.count - expected.added)
            #expect(new.tokens.map(\.id) == Array(expected.first..<expected.first + expected.added))
            for file in new.files { try file.write(into: after) }
            let tokenizer = try Tokenizer.load(folder: after)
            #expect(tokenizer.vocabularySize == expected.size)
            #expect(content.list.map { tokenizer.id(for: $0) } == expected.tokens)
            for (number, text) in content.texts.enumerated() {
                #expect(tokenizer.encode(text: text) == expected.ids[number], "\(text)")
                #expect(tokenizer.decode(tokens: expected.ids[number]) == expected.decoded[number], "\(text)")
            }
            // The file is the same but for the entries.
            let (old, now) = (
                try #require(JSON.read(before.appendingPathComponent("tokenizer.json")).object),
                try #require(JSON.read(after.appendingPathComponent("tokenizer.json")).object)
            )
            for (key, value) in old where key != "added_tokens" { #expect(now[key] == value, "\(key)") }
            // Nothing is left to add.
            #expect(try NewTokens(content.list, in: after).tokens.isEmpty)
        }
    }

    @Test func listsHaveOneTokenPerLine() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("tokens.txt")
            try Data([0xEF, 0xBB, 0xBF] + Array("<a>\r\n\n b c\n<d>".utf8)).write(to: file)
            #expect(try NewTokens.list(file) == ["<a>", " b c", "<d>"])
            try Data("\n".utf8).write(to: file)
            let empty = try #require(throws: PEFTError.self) { try NewTokens.list(file) }
            #expect(empty.problem.contains("lists no tokens"))
            try Data([0x61, 0xFF]).write(to: file)
            let damaged = try #require(throws: PEFTError.self) { try NewTokens.list(file) }
            #expect(damaged.problem.contains("UTF-8"))
        }
    }

    @Test func tokenizersWithoutATokenizerFileAreRefused() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("vocab.txt")
            try Data("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\na\n".utf8).write(to: file)
            let error = try #require(throws: PEFTError.self) { try NewTokens(["<x>"], in: folder) }
            #expect(error.problem.contains("no tokenizer.json"))
        }
    }
}
