import Testing

@testable import PEFTTokenizers

/// Cuts are those of Python's `tokenizers`; the fixture is written by `Fixtures/make_script_fixtures.py`.
@Suite struct UnicodeScriptsTests {
    private struct Expected: Decodable {
        let blocks: [String]
        let lines: [String]
        let cuts: [[Int]]
    }

    /// Where pieces begin and end, in scalars.
    private func cuts(_ text: String) -> [Int] {
        var pieces = PreTokenizedText(Array(text.utf8), startsText: true)
        UnicodeScripts().split(&pieces)
        var before = [0]
        for byte in pieces.bytes { before.append(before[before.count - 1] + (byte & 0xC0 == 0x80 ? 0 : 1)) }
        return pieces.pieces.flatMap { [before[$0.lowerBound], before[$0.upperBound]] }
    }

    @Test func everyScalarHasTheReferencesScript() throws {
        let expected = try Fixture.read("scripts", as: Expected.self)
        for (block, wanted) in expected.blocks.enumerated() {
            let scalars = (UInt32(block * 0x2000)..<UInt32(block * 0x2000 + 0x2000)).compactMap(Unicode.Scalar.init)
            let text = scalars.map { "a\($0)b漢\($0) \($0)" }.joined()
            #expect(digest(cuts(text)) == wanted, "U+\(String(block * 0x2000, radix: 16)) and what follows")
        }
    }

    @Test func linesAreCutAsInTheReference() throws {
        let expected = try Fixture.read("scripts", as: Expected.self)
        for (line, wanted) in zip(expected.lines, expected.cuts) {
            #expect(cuts(line) == wanted, "\(line.debugDescription)")
        }
    }

    @Test func tokenizerFilesMayNameIt() throws {
        let tokenizer = try Tokenizer.load(
            json: #"""
                {"version": "1.0", "pre_tokenizer": {"type": "UnicodeScripts"},
                 "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "ab ": 1, "漢字": 2}, "unk_token": "<unk>"}}
                """#)
        let encoding = tokenizer.encode(text: " ab 漢字ж", pair: nil, withOffsets: true)
        #expect(encoding.ids == [1, 2, 0])
        #expect(encoding.offsets == [1..<4, 4..<6, 6..<7])
    }
}
