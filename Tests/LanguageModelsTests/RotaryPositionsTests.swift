import Foundation
import PEFTSupport
import Testing
import Torch

@testable import LanguageModels

/// Angles and factors equal those of transformers' rotary embeddings, for every family and kind of positions, in older
/// files and newer ones (`make_rope_fixtures.py`).
@Suite struct RotaryPositionsTests {
    private func rotary(_ model: any LanguageModel) throws -> RotaryPositions {
        if let model = model as? Llama { return model.settings.rotary }
        if let model = model as? Gemma { return model.settings.rotary }
        return try #require(model as? Phi3).settings.rotary
    }

    @Test func anglesEqualTransformers() throws {
        let file = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/rope.json")
        let cases = try #require(try JSON.read(file).array)
        #expect(cases.count == 74)
        for (number, item) in cases.enumerated() {
            let configuration = try #require(item["configuration"])
            let comment = Comment(rawValue: "case \(number): \(configuration.text(indent: nil))")
            let model = try ModelRegistry.outline(configuration, file: "config.json")
            let rotary = try rotary(model)
            func numbers(_ key: String) -> [Double] { (item[key]?.array ?? []).compactMap(\.double) }
            func isClose(_ a: [Double], _ b: [Double]) -> Bool {
                a.count == b.count && zip(a, b).allSatisfy { abs($0 - $1) < 1e-5 * $1 }
            }
            #expect(isClose(rotary.frequencies, numbers("inv_freq")), comment)
            #expect(abs(rotary.attentionFactor - (item["attention_scaling"]?.double ?? .nan)) < 1e-9, comment)
            #expect(rotary.longFrequencies.map { isClose($0, numbers("long")) } ?? (item["long"] == nil), comment)
            if let local = (model as? Gemma)?.settings.localRotary, item["local"] != nil {
                #expect(isClose(local.frequencies, numbers("local")), comment)
            }
        }
    }

    /// A file may have both keys, the older one without a value.
    @Test(arguments: [JSON.null, [:]]) func anOlderKeyWithoutAValueHidesNothing(old: JSON) throws {
        let newer: JSON = ["rope_type": "linear", "factor": 4, "rope_theta": 100]
        let fields: [String: JSON] = ["rope_parameters": newer, "max_position_embeddings": 64]
        let expected = try RotaryPositions(ConfigurationReader(json: .object(fields)), headSize: 8)
        let both = JSON.object(fields.merging(["rope_scaling": old]) { $1 })
        let read = try RotaryPositions(ConfigurationReader(json: both), headSize: 8)
        #expect(read.frequencies == expected.frequencies && read.frequencies[0] == 0.25)
    }

    /// The longest row of a batch decides, and its length counts, not its last position.
    @Test func longropeSwitchesBeyondTheLengthOfPretraining() throws {
        let model = try DecoderFixture(name: "phi3-longrope").load()
        let rotary = try rotary(model)
        func cosines(_ longest: Int) -> [Float] {
            rotary.rotation(at: Tensor([3]), longest: longest, dtype: .float32).cosines.array()
        }
        #expect(cosines(4) == cosines(16))
        #expect(cosines(17) == cosines(40))
        #expect(cosines(16) != cosines(17))
    }
}
