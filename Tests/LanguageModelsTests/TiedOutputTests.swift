import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch

@testable import LanguageModels

/// The weight files decide whether the output layer is tied; the `config.json` that is written says so.
@Suite struct TiedOutputTests {
    /// Only T5 has a key that keeps the scale of its hidden states when tying changes.
    @Test(arguments: [
        ("llama", true, nil), ("decoders/mt5", true, nil), ("decoders/mt5-tied", false, nil),
        ("t5-v1.0", false, false),
    ])
    func writtenKeysAreThoseOfTheFamily(name: String, says: Bool, scales: Bool?) throws {
        try withTemporaryCopy(of: Checkout.model(name)) { folder in
            let file = folder.appendingPathComponent("config.json")
            var fields = try #require(JSON.read(file).object)
            fields["tie_word_embeddings"] = .bool(says)
            try AtomicFile.write(JSON.object(fields).text(), to: file)
            let model = try ModelFolder(folder).load()
            // The file says the opposite of the configuration.
            #expect(model.hasTiedOutput != says)
            let copy = folder.appendingPathComponent("copy")
            try model.save(to: copy)
            let written = try #require(JSON.read(copy.appendingPathComponent("config.json")).object)
            #expect(written["tie_word_embeddings"] == .bool(!says))
            #expect(written["scale_decoder_outputs"] == scales.map { .bool($0) })
            #expect(try ModelFolder(copy).load().hasTiedOutput == model.hasTiedOutput)
        }
    }

    /// Without ties, transformers reads three tables of a BART-like model, of which files have copies.
    @Test(arguments: ["bart", "m2m_100"]) func separateTablesOfTheStacksAreRefused(name: String) throws {
        try withTemporaryCopy(of: Checkout.model("decoders/\(name)")) { folder in
            let weights = folder.appendingPathComponent("model.safetensors")
            let file = try SafetensorsFile(weights)
            var tensors: [String: Tensor] = [:]
            for key in file.entries.keys { tensors[key] = try file.tensor(key).clone() }
            let table = try #require(tensors["model.shared.weight"])
            tensors["lm_head.weight"] = table.clone()
            tensors["model.decoder.embed_tokens.weight"] = table.clone()
            for (isTied, factor, isRefused) in [(false, 1.0, false), (false, 2.0, true), (true, 2.0, true)] {
                try JSON.rewrite(folder.appendingPathComponent("config.json")) {
                    $0["tie_word_embeddings"] = .bool(isTied)
                }
                tensors["model.encoder.embed_tokens.weight"] = table * factor
                try SafetensorsFile.write(tensors, metadata: [:], to: weights)
                guard isRefused else {
                    #expect(try ModelFolder(folder).load().hasTiedOutput == isTied)
                    continue
                }
                let error = try #require(throws: PEFTError.self) { try ModelFolder(folder).load() }
                #expect(error.problem.contains("'model.encoder.embed_tokens.weight'"))
                #expect(error.problem.contains("differs from 'model.shared.weight'"))
            }
        }
    }
}
