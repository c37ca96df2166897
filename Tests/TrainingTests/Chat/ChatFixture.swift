import Foundation
import LanguageModels
import PEFTJinja
import PEFTSupport
import PEFTTokenizers
import Testing
import Training

/// The model, conversations and transformers' results of `make_chat_fixtures.py`.
struct ChatFixture {
    let folder: ModelFolder
    let tokenizer: Tokenizer
    let rows: URL
    let expected: JSON

    init() throws {
        let fixtures = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/chat")
        folder = try ModelFolder(fixtures.appendingPathComponent("model"))
        tokenizer = try Tokenizer.load(folder: folder.url)
        rows = fixtures.appendingPathComponent("rows.jsonl")
        expected = try JSON.read(fixtures.appendingPathComponent("expected.json"))
    }

    func conversations() throws -> [Conversation] { try ChatRows().read(rows) }

    func encoder(
        _ source: String? = nil, loss: ChatLoss = .assistant, maxTokens: Int = 512
    ) throws -> ChatEncoder {
        try ChatEncoder(
            tokenizer, .load(folder: folder.url, source: source), for: folder.outline(), loss: loss,
            maxTokens: maxTokens)
    }

    /// transformers' ids and masks for a template; `nil` for a row that it refuses.
    func expected(_ template: String) throws -> [(ids: [Int], mask: [Bool])?] {
        let ids = try #require(expected[template]?["ids"]?.array)
        let masks = try #require(expected[template]?["masks"]?.array)
        return zip(ids, masks).map { ids, mask in
            ids.array.map { ($0.compactMap(\.int), (mask.array ?? []).map { $0.int == 1 }) }
        }
    }
}

extension EncodedExample {
    var ids: [Int] { input + target }
    var mask: [Bool] { input.map { _ in false } + (loss ?? target.map { _ in true }) }
}
