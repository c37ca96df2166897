import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Folders of encoder-decoders that transformers reads in a way of its own.
@Suite struct EncoderDecoderFolderTests {
    private static let decoders = Checkout.model("decoders")

    /// Without `generation_config.json`, transformers reads `forced_eos_token_id` of the classes that have it.
    @Test func forcedEndTokensAreThoseOfTheClass() throws {
        func forced(_ name: String, file: String = "config.json", _ value: JSON?) throws -> [Int] {
            let folder = Self.decoders.appendingPathComponent(name)
            var fields = try JSON.read(folder.appendingPathComponent("config.json")).object ?? [:]
            fields["forced_eos_token_id"] = value
            let model = try ModelRegistry.outline(.object(fields), file: "config.json")
            model.folderSettings.generation = GenerationSource(name: file, .object(fields))
            return try GenerationSettings(GenerateParameters(), for: model).forcedLastTokens
        }
        #expect(try forced("bart", 7) == [7])
        #expect(try forced("bart", nil) == [2])
        #expect(try forced("bart", .null) == [])
        #expect(try forced("pegasus", nil) == [1])
        #expect(try forced("marian", nil) == [0])
        #expect(try forced("m2m_100", 7) == [])
        #expect(try forced("mt5", 7) == [])
        #expect(try forced("m2m_100", file: "generation_config.json", 7) == [7])
        #expect(try forced("bart", file: "generation_config.json", nil) == [])
    }

    /// transformers keeps the stacks' tables apart if they differ.
    @Test func differentTablesOfTheStacksAreRefused() throws {
        try withTemporaryCopy(of: Self.decoders.appendingPathComponent("bart")) { folder in
            let file = folder.appendingPathComponent("model.safetensors")
            var tensors = try SafetensorsFile(file).tensors().mapValues { $0.clone() }
            let table = try #require(tensors["model.shared.weight"])
            tensors["model.encoder.embed_tokens.weight"] = table.clone()
            try SafetensorsFile.write(tensors, metadata: ["format": "pt"], to: file)
            _ = try ModelFolder(folder).load()
            tensors["model.encoder.embed_tokens.weight"] = table + 1
            try SafetensorsFile.write(tensors, metadata: ["format": "pt"], to: file)
            let error = try #require(throws: PEFTError.self) { try ModelFolder(folder).load() }
            #expect(error.problem.contains("'model.encoder.embed_tokens.weight'"))
            #expect(error.problem.contains("differs from 'model.shared.weight'"))
        }
    }

    @Test func aClassifierNeedsAnEndToken() throws {
        let folder = try ModelFolder(Checkout.model("heads").appendingPathComponent("bart"))
            .with(ModelHead(task: .classification, labels: ["a", "b"]))
        let model = try folder.load()
        let error = try #require(throws: PEFTError.self) {
            try withTorchErrors {
                _ = model.logits(model.batch([TrainingRow(input: [5, 6], target: [0])], device: .cpu))
            }
        }
        #expect(error.problem.contains("no end token (2)"))
        let other = try ModelFolder(Self.decoders.appendingPathComponent("pegasus"))
        #expect(throws: PEFTError.self) {
            try other.with(ModelHead(task: .classification, labels: ["a", "b"])).outline()
        }
    }
}
