import PEFTSupport
import Testing

@testable import PEFTTokenizers

/// Pairs, limits and words: ids, types and words are those of Python's `tokenizers`. The fixture is written by
/// `Fixtures/make_encoding_fixtures.py`.
@Suite struct EncodingTests {
    struct Case: Decodable {
        struct Run: Decodable {
            let text: String
            let pair: String?
            let limit: Int?
            let strategy: String
            let special: Bool
            let ids: [Int]
            let typeIDs: [Int]
        }
        struct Words: Decodable {
            let words: [String]
            let limit: Int?
            let ids: [Int]
            let typeIDs: [Int]
            let indices: [Int?]
        }
        let name: String
        let tokenizer: JSON
        let runs: [Run]
        let words: [Words]
    }

    static let cases = try? Fixture.read("encodings", as: [Case].self)
    static let names = cases?.map(\.name) ?? []

    @Test func fixtureHoldsCases() {
        #expect(EncodingTests.names.count == 7)
    }

    @Test(arguments: names)
    func pairsAndLimitsMatchReference(name: String) throws {
        let item = try #require(EncodingTests.cases?.first { $0.name == name })
        let tokenizer = try Tokenizer.load(json: item.tokenizer.text(indent: nil))
        #expect(item.runs.count > 70)
        for run in item.runs {
            let truncation: Truncation =
                switch run.strategy {
                case "only_first": .onlyFirst
                case "only_second": .onlySecond
                default: .longestFirst
                }
            let encoding = tokenizer.encode(
                text: run.text, pair: run.pair, maxTokens: run.limit, truncation: truncation,
                addSpecialTokens: run.special)
            #expect(encoding.ids == run.ids && encoding.typeIDs == run.typeIDs, "\(run)")
            #expect(encoding.wordIndices.isEmpty)
            let whole = tokenizer.encode(text: run.text, pair: run.pair, addSpecialTokens: run.special)
            #expect(encoding.isTruncated == (whole.ids.count > encoding.ids.count))
            if run.pair == nil {
                #expect(tokenizer.encode(text: run.text, addSpecialTokens: run.special) == whole.ids)
            }
        }
    }

    @Test(arguments: names)
    func wordsMatchReference(name: String) throws {
        let item = try #require(EncodingTests.cases?.first { $0.name == name })
        let tokenizer = try Tokenizer.load(json: item.tokenizer.text(indent: nil))
        for row in item.words {
            let encoding = tokenizer.encode(words: row.words, maxTokens: row.limit)
            #expect(encoding.ids == row.ids && encoding.typeIDs == row.typeIDs, "\(row)")
            #expect(encoding.wordIndices == row.indices, "\(row)")
        }
    }

    @Test func limitsBelowTheSpecialTokensLeaveThem() throws {
        let item = try #require(EncodingTests.cases?.first { $0.name == "BertProcessing" })
        let tokenizer = try Tokenizer.load(json: item.tokenizer.text(indent: nil))
        let encoding = tokenizer.encode(text: "a b", pair: "c", maxTokens: 1)
        #expect(encoding.ids == [5, 6, 6])
        #expect(encoding.isTruncated)
        #expect(tokenizer.encode(text: "a b", pair: "c", maxTokens: -3).ids == [5, 6, 6])
    }
}
