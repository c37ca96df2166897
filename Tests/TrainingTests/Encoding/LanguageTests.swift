import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing

@testable import Training

/// Languages of models that translate, compared with `transformers` (`make_language_fixtures.py`).
@Suite struct LanguageTests {
    private static func folder(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/languages/\(name)")
    }

    private static func ids(_ json: JSON?) -> [Int] { (json?.array ?? []).compactMap(\.int) }

    @Test(arguments: ["nllb", "nllb-legacy", "mbart", "mbart50"]) func idsEqualTransformers(name: String) throws {
        let folder = try Self.folder(name)
        let expected = try JSON.read(folder.appendingPathComponent("expected.json"))
        let tokenizer = try Tokenizer.load(folder: folder)
        let text = try #require(expected["text"]?.string)
        #expect(tokenizer.encode(text: text) == Self.ids(expected["default"]?["ids"]))
        #expect(tokenizer.encode(target: text) == Self.ids(expected["default"]?["labels"]))
        let pairs = expected["pairs"]?.array ?? []
        #expect(!pairs.isEmpty)
        for pair in pairs {
            let other = try tokenizer.translating(
                TranslationLanguages(source: pair["source"]?.string, target: pair["target"]?.string))
            #expect(other.encode(text: text) == Self.ids(pair["ids"]))
            #expect(other.encode(target: text) == Self.ids(pair["labels"]))
            #expect(other.targetLanguageID == pair["id"]?.int)
            #expect(other.decode(tokens: Self.ids(pair["labels"])) == tokenizer.decode(tokens: Self.ids(pair["ids"])))
        }
    }

    /// Transformers sets the special tokens of these classes itself.
    @Test func theClassDecidesBeforeTheFile() throws {
        let folder = try Self.folder("nllb")
        try withTemporaryFolder { copy in
            let file = try String(contentsOf: folder.appendingPathComponent("tokenizer.json"), encoding: .utf8)
            try AtomicFile.write(
                file.replacingOccurrences(of: "eng_Latn\", \"type_id", with: "fra_Latn\", \"type_id"),
                to: copy.appendingPathComponent("tokenizer.json"))
            var settings = try #require(
                try JSON.read(folder.appendingPathComponent("tokenizer_config.json")).object)
            settings["src_lang"] = "zho_Hans"
            try AtomicFile.write(
                JSON.object(settings).text(), to: copy.appendingPathComponent("tokenizer_config.json"))
            let tokenizer = try Tokenizer.load(folder: copy)
            #expect(tokenizer.encode(text: "a").first == tokenizer.id(for: "zho_Hans"))
        }
    }

    @Test func unknownLanguagesNameNearOnes() throws {
        let tokenizer = try Tokenizer.load(folder: Self.folder("nllb"))
        func error(_ source: String, _ tokenizer: Tokenizer) throws -> PEFTError {
            try #require(throws: PEFTError.self) { try tokenizer.translating(TranslationLanguages(source: source)) }
        }
        for near in ["fr", "fra", "fra_Latm", "FRA_latn"] {
            #expect(try error(near, tokenizer).description.contains("did you mean fra_Latn?"), "\(near)")
        }
        #expect(try error("xx", tokenizer).description.contains("it has ace_Arab, deu_Latn"))
        let mbart = try Tokenizer.load(folder: Self.folder("mbart"))
        #expect(try error("german", mbart).description.contains("the tokenizer has no language 'german'"))
        #expect(try error("de", mbart).description.contains("did you mean de_DE?"))
        let plain = try Tokenizer.load(folder: Checkout.tinyT5)
        #expect(try error("de", plain).description.contains("no languages"))
    }

    /// A field of the data names the languages of each row.
    @Test func rowsHaveTheirOwnLanguages() throws {
        let tokenizer = try Tokenizer.load(folder: Self.folder("mbart50"))
        let model = try ModelFolder(Checkout.models.appendingPathComponent("decoders/mbart")).load()
        let encoder = try RowEncoder(tokenizer, for: model, maxInputTokens: 6)
        var settings = DataSettings(prompt: "{from}", target: "{to}")
        (settings.sourceLanguage, settings.targetLanguage) = ("{source}", "{target}")
        func row(_ number: Int, _ target: String) -> Row {
            Row(
                ["from": "a cat sat", "to": "on", "source": "de_DE", "target": .string(target)],
                location: .init(file: "rows.jsonl", number: number))
        }
        let examples = try settings.templates().examples(from: [row(1, "fr_XX"), row(2, "ro_RO")])
        let encoded = try encoder.encode(examples).examples
        let (german, french) = (tokenizer.id(for: "de_DE"), tokenizer.id(for: "fr_XX"))
        #expect(encoded.map(\.input.first) == [german, german])
        #expect(encoded.allSatisfy { $0.input.count == 6 && $0.input.last == tokenizer.eosTokenID })
        #expect(encoded.map(\.target.first) == [french, tokenizer.id(for: "ro_RO")])
        #expect(try encoder.beginning(examples[0].languages) == TextBeginning(firstToken: french))
        #expect(encoder.beginning(of: encoded[0].target) == TextBeginning(firstToken: french))
        let error = try #require(throws: PEFTError.self) {
            try encoder.encode(settings.templates().examples(from: [row(1, "fr_XX"), row(7, "fr")]))
        }
        #expect(error.problem.contains("'fr'") && error.problem.contains("rows.jsonl line 7"))
        // Two references of one text are in one language.
        #expect(Example.groupedByPrompt(examples).count == 2)
    }

    /// In mBART's layout, the decoder starts with the language in training.
    @Test func aLanguageAtTheEndStartsTheDecoder() throws {
        let tokenizer = try Tokenizer.load(folder: Self.folder("mbart"))
        let model = try ModelFolder(Checkout.models.appendingPathComponent("decoders/mbart")).load()
        let encoder = try RowEncoder(tokenizer, for: model, maxInputTokens: 5)
        let languages = TranslationLanguages(source: "de_DE", target: "ro_RO")
        let romanian = try #require(tokenizer.id(for: "ro_RO"))
        #expect(try encoder.beginning(languages) == TextBeginning(startToken: romanian))
        let (ids, isTruncated) = try encoder.prompt("a cat sat", languages: languages)
        #expect(isTruncated && ids.count == 5)
        #expect(ids.suffix(2) == [2, tokenizer.id(for: "de_DE")])
    }

    @Test func otherModelsHaveNoLanguages() throws {
        let tokenizer = try Tokenizer.load(folder: Self.folder("nllb"))
        let model = try ModelFolder(Checkout.model("gpt2")).load()
        let encoder = try RowEncoder(tokenizer, for: model, maxInputTokens: 16)
        let error = try #require(throws: PEFTError.self) {
            try encoder.prompt("a", languages: TranslationLanguages(source: "eng_Latn"))
        }
        #expect(error.problem.contains("encoder-decoders"))
    }

    @Test func textsOfABatchBeginInTheirOwnLanguages() throws {
        let cases = try JSON.read(Self.folder("generated.json")).array ?? []
        #expect(cases.count == 4)
        for item in cases {
            let name = try #require(item["model"]?.string)
            let model = try ModelFolder(Checkout.models.appendingPathComponent("decoders/\(name)")).load()
            let isStart = item["option"] == "decoder_start_token_id"
            let beginnings = Self.ids(item["tokens"]).map {
                isStart ? TextBeginning(startToken: $0) : TextBeginning(firstToken: $0)
            }
            let texts = try Generator(
                model, GenerateParameters(maxNewTokens: 8, temperature: 0, beams: item["beams"]?.int)
            ).generate(
                (item["prompts"]?.array ?? []).map(Self.ids), constraint: nil, beginnings: beginnings)
            let end = try #require(item["end"]?.int)
            let expected = (item["texts"]?.array ?? []).map { Array(Self.ids($0).prefix { $0 != end }) }
            #expect(texts == expected, "\(name) \(item["beams"]?.int ?? 0)")
        }
    }
}
