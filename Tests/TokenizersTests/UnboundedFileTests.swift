import Foundation
import PEFTSupport
import Testing

@testable import PEFTTokenizers

/// Files whose stages would take time or memory without end on some text load, and such a text ends in an error.
@Suite struct UnboundedFileTests {
    private func tokenizer(_ key: String, _ stage: JSON) throws -> Tokenizer {
        try Tokenizer.load(json: MalformedFileTests.damaged(key, stage).text())
    }

    private static let bomb: JSON = ["Regex": "(a+)+$"]
    private static let text = String(repeating: "a", count: 50) + "!"

    @Test(
        arguments: [
            ("pre_tokenizer", ["type": "Split", "pattern": bomb, "behavior": "Isolated", "invert": false]),
            ("normalizer", ["type": "Replace", "pattern": bomb, "content": "b"]),
        ] as [(String, JSON)])
    func expressions(key: String, stage: JSON) throws {
        let tokenizer = try tokenizer(key, stage)
        #expect(try withTokenizerErrors { tokenizer.encode(text: "aab") }.isEmpty == false)
        for withOffsets in [false, true] {
            let error = #expect(throws: PEFTError.self) {
                try withTokenizerErrors {
                    tokenizer.encode(text: Self.text, pair: nil, withOffsets: withOffsets)
                }
            }
            #expect(error?.description.contains("too many steps") == true)
        }
        // A scope's failure is its own.
        #expect(try withTokenizerErrors { tokenizer.encode(text: "b") }.isEmpty == false)
    }

    @Test func replacementsDoNotGrowWithoutEnd() throws {
        let steps = [JSON](
            repeating: [
                "type": "Replace", "pattern": ["String": "a"], "content": .string(String(repeating: "a", count: 100)),
            ],
            count: 6)
        let tokenizer = try tokenizer("normalizer", ["type": "Sequence", "normalizers": .array(steps)])
        for withOffsets in [false, true] {
            let error = #expect(throws: PEFTError.self) {
                try withTokenizerErrors { tokenizer.encode(text: "a", pair: nil, withOffsets: withOffsets) }
            }
            #expect(error?.description.contains("replacements") == true)
        }
        let decoding = try self.tokenizer("decoder", ["type": "Sequence", "decoders": .array(steps)])
        #expect(throws: PEFTError.self) { try withTokenizerErrors { decoding.decode(tokens: [2, 2]) } }
    }
}
