import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTTokenizers

/// What `tokenizer_config.json` changes about a `tokenizer.json`, as Python's transformers reads both. The fixture is
/// written by `Fixtures/make_configuration_fixtures.py`.
@Suite struct ConfigurationTests {
    struct Cases: Decodable {
        struct Case: Decodable {
            let name: String
            let configuration: JSON
            let ids: [[Int]]
            let decoded: [String]
            let pair: [Int]
            let types: [Int]
            let pad: Int?
            let eos: Int?
            let bos: Int?
            let size: Int
        }
        let tokenizer: JSON
        let texts: [String]
        let cases: [Case]
    }

    static let content = try? Fixture.read("configurations", as: Cases.self)
    static let names = content?.cases.map(\.name) ?? []

    func load(_ tokenizer: JSON, _ configuration: JSON) throws -> Tokenizer {
        try withTemporaryFolder { folder in
            try AtomicFile.write(tokenizer.text(), to: folder.appendingPathComponent("tokenizer.json"))
            try AtomicFile.write(configuration.text(), to: folder.appendingPathComponent("tokenizer_config.json"))
            return try Tokenizer.load(folder: folder)
        }
    }

    @Test func fixtureHoldsCases() { #expect(ConfigurationTests.names.count >= 14) }

    @Test(arguments: names)
    func configurationIsReadAsTransformersDoes(name: String) throws {
        let content = try #require(ConfigurationTests.content)
        let item = try #require(content.cases.first { $0.name == name })
        let tokenizer = try load(content.tokenizer, item.configuration)
        for (number, text) in content.texts.enumerated() {
            #expect(tokenizer.encode(text: text) == item.ids[number], "\(text)")
            #expect(same(tokenizer.decode(tokens: item.ids[number]), item.decoded[number]), "\(text)")
        }
        let pair = tokenizer.encode(text: "a", pair: "b")
        #expect(pair.ids == item.pair)
        #expect(pair.typeIDs == item.types)
        #expect(tokenizer.padTokenID == item.pad)
        #expect(tokenizer.eosTokenID == item.eos)
        #expect(tokenizer.bosTokenID == item.bos)
        #expect(tokenizer.vocabularySize == item.size)
    }

    @Test(
        arguments: [
            (["added_tokens_decoder": ["3": ["special": true]]], "content must be a string"),
            (["added_tokens_decoder": ["3": "x"]], "is not an object"),
            (["pad_token": ["content": "x", "lstrip": 1]], "lstrip must be true or false"),
            (["pad_token": 3], "pad_token must be a string"),
        ] as [(JSON, String)])
    func damageIsNamed(configuration: JSON, problem: String) throws {
        let content = try #require(ConfigurationTests.content)
        let error = #expect(throws: PEFTError.self) { try load(content.tokenizer, configuration) }
        #expect(error?.problem.contains(problem) == true, "\(String(describing: error))")
        #expect(error?.problem.contains("tokenizer_config.json") == true)
    }
}
