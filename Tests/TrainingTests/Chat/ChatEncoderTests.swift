import Foundation
import LanguageModels
import PEFTJinja
import PEFTSupport
import PEFTTokenizers
import Testing

@testable import Training

@Suite struct ChatEncoderTests {
    private let fixture: ChatFixture

    init() throws { fixture = try ChatFixture() }

    private func conversation(_ texts: String..., system: String? = nil) -> Conversation {
        var result = Conversation(
            messages: texts.enumerated().map {
                Conversation.message($0.isMultiple(of: 2) ? "user" : "assistant", $1)
            },
            row: .init(file: "rows.jsonl", number: 7))
        if let system { result.insert(system: system) }
        return result
    }

    private func text(_ example: EncodedExample, withLoss: Bool) -> String {
        let ids = zip(example.ids, example.mask).filter { $1 == withLoss }.map(\.0)
        return fixture.tokenizer.decode(tokens: ids, skipSpecialTokens: false)
    }

    // MARK: Against transformers

    @Test(arguments: ["chatml", "inst", "closing"], ["template", "plain"])
    func idsAndMasksEqualTransformers(name: String, kind: String) throws {
        let encoder = try fixture.encoder(fixture.expected[name]?[kind]?.string)
        var compared = 0
        for (conversation, expected) in zip(try fixture.conversations(), try fixture.expected(name)) {
            guard let expected else { continue }
            let example = try #require(encoder.encode([conversation]).examples.first)
            #expect(example.ids == expected.ids, "\(conversation.row)")
            guard kind == "plain" else {
                #expect(example.mask == expected.mask, "\(conversation.row)")
                compared += 1
                continue
            }
            // Without blocks a text that closes after the last turn is all its own.
            let last = try #require(expected.mask.lastIndex(of: true))
            #expect(
                Array(example.mask.prefix(last + 1)) == Array(expected.mask.prefix(last + 1)), "\(conversation.row)")
            compared += 1
        }
        #expect(compared >= 5)
    }

    @Test func theTokenizersOwnTemplateIsTheUsualOne() throws {
        let own = try fixture.encoder().encode(fixture.conversations()).examples
        for (example, expected) in zip(own, try fixture.expected("chatml")) {
            #expect(example.ids == expected?.ids && example.mask == expected?.mask)
        }
    }

    // MARK: Which tokens

    @Test func lossOfTheLastTurnAndOfAll() throws {
        let row = conversation("a", "first", "b", "second", "c")
        for kind in ["template", "plain"] {
            let source = fixture.expected["chatml"]?[kind]?.string
            let last = try #require(fixture.encoder(source, loss: .last).encode([row]).examples.first)
            #expect(text(last, withLoss: true) == "second<|im_end|>")
            #expect(last.learnedLength < last.target.count)
            let every = try #require(fixture.encoder(source).encode([row]).examples.first)
            #expect(text(every, withLoss: true) == "first<|im_end|>second<|im_end|>")
            let all = try #require(fixture.encoder(source, loss: .all).encode([row]).examples.first)
            #expect(all.input.count == 1 && all.loss == nil && all.lossCount == all.length - 1)
        }
    }

    @Test func promptsOfAPairBearNoLoss() throws {
        var row = conversation("a", "example", "b", "answer", system: "S")
        row.firstToLearn = 4
        for kind in ["template", "plain"] {
            let encoder = try fixture.encoder(fixture.expected["chatml"]?[kind]?.string)
            #expect(text(try #require(encoder.encode([row]).examples.first), withLoss: true) == "answer<|im_end|>")
        }
    }

    @Test func longRowsLoseTheirEnd() throws {
        let row = conversation("a", "first", "b", "second")
        let whole = try #require(fixture.encoder().encode([row]).examples.first)
        let (cut, summary) = try fixture.encoder(maxTokens: whole.length - 4).encode([row])
        #expect(cut[0].ids == Array(whole.ids.dropLast(4)) && summary.truncated == 1 && summary.dropped == 0)
        #expect(Array(whole.mask.dropLast(4)).count { $0 } == cut[0].lossCount)
        // Only what still has loss stays.
        let short = conversation("a", "b")
        let limit = (whole.mask.firstIndex(of: true) ?? 0) + 1
        let (kept, counts) = try fixture.encoder(maxTokens: limit).encode([
            conversation("aaaa bbb cc dd", "b"), short,
        ])
        #expect(kept.count == 1 && counts.dropped == 1 && counts.rows == 1)
        let error = try #require(throws: PEFTError.self) { try fixture.encoder(maxTokens: 3).encode([row, short]) }
        #expect(error.problem.contains("no token") && error.remedy?.contains("--max-length") == true)
    }

    @Test func rowsWithoutAssistantTurnsAreLeftOut() throws {
        let (examples, summary) = try fixture.encoder().encode([conversation("only"), conversation("a", "b")])
        #expect(examples.count == 1 && summary.dropped == 1)
        #expect(throws: PEFTError.self) { try fixture.encoder().encode([conversation("only")]) }
    }

    @Test func openTurnsAreCounted() throws {
        let source =
            "{% for m in messages %}{{ '<s>' if m.role == 'user' else '</s>' }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}</s>{% endif %}"
        #expect(try fixture.encoder(source).encode([conversation("a", "b")]).summary.openTurns == 1)
        #expect(try fixture.encoder(source).turnEnd == nil)
        #expect(try fixture.encoder().encode([conversation("a", "b")]).summary.openTurns == 0)
        let encoder = try fixture.encoder()
        #expect(encoder.turnEnd == fixture.tokenizer.id(for: "<|im_end|>"))
    }

    // MARK: What is refused

    @Test func promptsThatAreNoBeginningAreRefused() throws {
        let source =
            "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:<s>{% endif %}"
        let error = try #require(throws: PEFTError.self) {
            try fixture.encoder(source).encode([conversation("a", "b")])
        }
        #expect(error.problem.contains("message 2"), "\(error)")
        #expect(throws: PEFTError.self) { try fixture.encoder(source).encode([conversation()]) }
    }

    @Test func templatesNameTheRowTheyRefuse() throws {
        let error = try #require(throws: PEFTError.self) {
            try fixture.encoder("{{ raise_exception('no') }}").encode([conversation("a", "b")])
        }
        #expect(error.problem.contains("rows.jsonl line 7") && error.problem.contains("no"))
    }

    // MARK: Encoder-decoders

    @Test func encoderDecodersReadUpToTheLastTurn() throws {
        let t5 = try ModelFolder(ModelLocator.folder(ModelLocator.embedded))
        let tokenizer = try Tokenizer.load(folder: t5.url)
        let source =
            "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
        func encoder(_ limit: Int) throws -> ChatEncoder {
            try ChatEncoder(
                tokenizer, .load(folder: t5.url, source: source), for: t5.outline(), maxTokens: limit)
        }
        let row = conversation("Hello", "Hi", "How are you?", "Well.")
        let example = try #require(encoder(99).encode([row]).examples.first)
        #expect(example.input == tokenizer.encode(text: "user: Hello assistant: Hi user: How are you? assistant: "))
        #expect(example.target == tokenizer.encode(text: "Well.") && example.target.last == tokenizer.eosTokenID)
        #expect(try encoder(99).question(row).prompt == example.input)
        let (cut, summary) = try encoder(6).encode([row])
        #expect(cut[0].input.count == 6 && cut[0].input.last == tokenizer.eosTokenID && summary.truncated == 1)
        #expect(cut[0].target == example.target)
    }

    // MARK: Prompts

    @Test func promptsEndWhereTheModelBegins() throws {
        let encoder = try fixture.encoder()
        let row = conversation("a", "first", "b", "second")
        let (prompt, answer) = try encoder.question(row)
        #expect(answer == "second")
        let text = fixture.tokenizer.decode(tokens: prompt, skipSpecialTokens: false)
        #expect(text.hasSuffix("<|im_start|>assistant\n") && text.contains("first"))
        let whole = try #require(encoder.encode([row]).examples.first)
        #expect(whole.ids.starts(with: prompt))
    }
}
