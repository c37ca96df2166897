import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels

/// What `generation_config.json` says is done as transformers does it; `make_generation_fixtures.py` wrote what it makes.
@Suite struct GenerationConfigurationTests {
    private static let fixtures = Bundle.module.resourceURL?.appendingPathComponent("Fixtures")

    private func fixture(_ key: String) throws -> [JSON] {
        try JSON.read(#require(Self.fixtures).appendingPathComponent("generation.json"))[key]?.array ?? []
    }

    private func ids(_ json: JSON?) -> [[Int]] { (json?.array ?? []).map(\.integers) }

    /// A fixture's model with settings as its folder would have them.
    private func load(_ name: String, _ settings: JSON) throws -> any LanguageModel {
        let model = try ModelFolder(#require(Self.fixtures).appendingPathComponent(name)).load()
        model.folderSettings.generation = GenerationSource(name: "generation_config.json", settings)
        return model
    }

    private func prompts(_ name: String) throws -> [[Int]] {
        let expected = try JSON.read(#require(Self.fixtures).appendingPathComponent("\(name)/expected.json"))
        return (expected["rows"]?.array ?? []).prefix(3).map { row in
            (row.array?.first?.array ?? []).compactMap(\.int)
        }
    }

    @Test(arguments: ["llama", "gpt2", "qwen2", "t5-v1.1", "t5-tied-gated"])
    func generatedIdsEqualTransformers(name: String) throws {
        let cases = try fixture("texts").filter { $0["model"]?.string == name }
        #expect(cases.count > 25)
        let prompts = try prompts(name)
        for item in cases {
            let settings = try #require(item["settings"])
            let generator = try Generator(load(name, settings), GenerateParameters())
            // One length for prompts of different lengths is max_length alone.
            let together = try generator.generate(prompts)
            #expect(together == ids(item["ids"]), "\(name) \(settings.text(indent: nil))")
        }
    }

    @Test func scoresEqualTransformers() throws {
        let items = try fixture("scores")
        #expect(items.count > 20)
        for item in items {
            let (settings, name) = (try #require(item["settings"]), item["model"]?.string ?? "")
            let all = try GenerationSettings(GenerateParameters(), for: load(name, settings))
            let (source, made) = (ids(item["source"]), ids(item["made"]))
            let texts = zip(source, made).map {
                ScoreProcessor.Text(
                    source: $0, before: name == "llama" ? $0 : [0], made: $1, most: 12, least: 0,
                    forced: all.forcedFirstToken)
            }
            let logits = (item["logits"]?.array ?? []).flatMap { ($0.array ?? []).compactMap(\.double) }
            let expected = (item["scores"]?.array ?? []).flatMap { ($0.array ?? []).map { $0.double } }
            let scores = try withTorchErrors {
                let own = Tensor(logits.map(Float.init), shape: [2, 32])
                var result = SamplingFilter(all)(ScoreProcessor(settings: all)(own, texts))
                if all.renormalizes { result = result.logSoftmax() }
                return result.array(Float.self)
            }
            #expect(scores.count == expected.count)
            let differing = zip(scores, expected).contains { mine, other in
                guard let other else { return mine != -.infinity }
                return abs(Double(mine) - other) > 1e-4 * max(1, abs(other))
            }
            #expect(!differing, "\(name) \(settings.text(indent: nil))")
        }
    }

    private func settings(_ json: JSON, _ parameters: GenerateParameters = .init()) throws -> GenerationSettings {
        try GenerationSettings(
            parameters, defaults: GenerationDefaults(startToken: nil, endTokens: [1], padToken: 0),
            source: GenerationSource(name: "generation_config.json", json))
    }

    @Test func optionsOverrideTheFile() throws {
        let json: JSON = [
            "do_sample": true, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [1, 2], "num_beams": 1,
            "repetition_penalty": 1.2, "max_new_tokens": 7,
        ]
        let plain = try settings(json)
        #expect(plain.temperature == 0.6 && plain.topK == 50 && plain.topP == 0.9 && plain.endTokens == [1, 2])
        #expect(try plain.maxNewTokens(after: 3) == 7)
        let note = try #require(plain.note)
        for word in ["eos_token_id 1|2", "temperature 0.6", "top_k 50", "repetition_penalty 1.2", "options override"]
        {
            #expect(note.contains(word), "\(note)")
        }
        let greedy = try settings(
            json, GenerateParameters(maxNewTokens: 3, temperature: 0, repetitionPenalty: 1))
        #expect(greedy.temperature == 0 && greedy.repetitionPenalty == 1 && greedy.endTokens == [1, 2])
        #expect(try greedy.maxNewTokens(after: 3) == 3)
        let beams = try settings(json, GenerateParameters(beams: 4))
        #expect(beams.beams == 4 && beams.temperature == 0)
        let sampled = try settings(["num_beams": 4], GenerateParameters(temperature: 0.7))
        #expect(sampled.beams == 1 && sampled.topK == 0)
    }

    @Test func lengthsCountWhatTransformersCounts() throws {
        let limited = try settings(["max_length": 10, "min_length": 6])
        #expect(try limited.maxNewTokens(after: 4) == 6)
        #expect(limited.minNewTokens(after: 4) == 2 && limited.minNewTokens(after: 9) == 0)
        let error = try #require(throws: PEFTError.self) { try limited.maxNewTokens(after: 10) }
        #expect(error.description.contains("'max_length'") && error.description.contains("10"))
        #expect(try settings([:]).maxNewTokens(after: 4) == 128)
        #expect(try settings([:]).note == nil)
    }

    @Test(
        arguments: [
            ("repetition_penalty", 0), ("eos_token_id", ["a"]), ("num_beams", 0), ("top_p", 2),
            ("bad_words_ids", [[]]),
            ("early_stopping", "often"), ("do_sample", 1), ("min_p", -1),
        ] as [(String, JSON)])
    func malformedValuesAreNamed(key: String, value: JSON) throws {
        let error = try #require(throws: PEFTError.self) { try settings(.object([key: value])) }
        #expect(error.problem.contains("generation_config.json: '\(key)' is"))
        #expect(error.remedy != nil)
    }

    @Test func unsupportedSettingsAreNamed() throws {
        let note = try #require(try settings(["typical_p": 0.5, "guidance_scale": 1, "diversity_penalty": 0]).note)
        #expect(note.contains("ignores typical_p, which is not supported"))
        #expect(!note.contains("guidance_scale") && !note.contains("applies"))
    }

    /// Sampling draws among what the filter leaves.
    @Test func samplingStaysWithinTheFilter() throws {
        let model = try load("llama", ["do_sample": true, "top_k": 1, "max_new_tokens": 6, "eos_token_id": 1])
        let greedy = try Generator(model, GenerateParameters(temperature: 0)).generate(prompts("llama"))
        #expect(try Generator(model, GenerateParameters(seed: 3)).generate(prompts("llama")) == greedy)
        let beams = try load(
            "llama",
            ["do_sample": true, "num_beams": 3, "max_new_tokens": 5, "eos_token_id": 1, "temperature": 1.5])
        let drawn = try (0..<2).map { try Generator(beams, GenerateParameters(seed: $0)).generate(prompts("llama")) }
        let again = try Generator(beams, GenerateParameters(seed: 0)).generate(prompts("llama"))
        #expect(drawn[0] != drawn[1] && drawn[0] == again)
    }

    /// Files of older versions of transformers list keys without a value.
    @Test func aNullIsNoSetting() throws {
        let keys = [
            "max_new_tokens", "do_sample", "temperature", "num_beams", "early_stopping", "forced_bos_token_id",
            "forced_eos_token_id", "bad_words_ids", "suppress_tokens", "eos_token_id", "renormalize_logits",
        ]
        let nulls = JSON.object(Dictionary(uniqueKeysWithValues: keys.map { ($0, .null) }))
        let read = try GenerationConfiguration(nulls, file: "generation_config.json")
        #expect(read.maxNewTokens == nil && read.samples == nil && read.temperature == nil && read.beams == nil)
        #expect(read.earlyStopping == nil && read.forcedFirstToken == nil && read.forcedLastTokens == nil)
        #expect(read.badWords == nil && read.suppressedTokens == nil && read.endTokens == nil)
        #expect(read.renormalizes == nil && read.unsupported.isEmpty)
    }

    /// The file of a folder is found, and without one the keys of `config.json` count.
    @Test func folderSettingsAreRead() throws {
        let source = try #require(Self.fixtures).appendingPathComponent("llama")
        var configuration = try #require(JSON.read(source.appendingPathComponent("config.json")).object)
        configuration["repetition_penalty"] = 1.5
        let weights = source.appendingPathComponent("model.safetensors")
        try withModelFolder(.object(configuration), weights: weights) { folder in
            #expect(try GenerationSettings(.init(), for: ModelFolder(folder).load()).repetitionPenalty == 1.5)
            try #"{"no_repeat_ngram_size": 3}"#.write(
                to: folder.appendingPathComponent("generation_config.json"), atomically: true, encoding: .utf8)
            let settings = try GenerationSettings(.init(), for: ModelFolder(folder).load())
            #expect(settings.repetitionPenalty == 1 && settings.noRepeatNgram == 3 && settings.endTokens == [1])
            try "{".write(
                to: folder.appendingPathComponent("generation_config.json"), atomically: true, encoding: .utf8)
            let model = try ModelFolder(folder).load()
            #expect(throws: PEFTError.self) { try Generator(model, GenerateParameters()) }
        }
    }
}
