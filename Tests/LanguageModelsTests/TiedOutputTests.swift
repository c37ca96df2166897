import Foundation
import PEFTSupport
import TestSupport
import Testing

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
}
