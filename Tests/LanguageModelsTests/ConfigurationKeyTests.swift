import Foundation
import PEFTSupport
import Testing

@testable import LanguageModels

/// Every key of transformers' configuration classes (`make_configuration_keys.py` and
/// `make_encoder_configuration_keys.py` list them) is read or known to change
/// nothing, and has transformers' value in a `config.json` that lacks it.
@Suite struct ConfigurationKeyTests {
    private static func classes() throws -> [String: [String: JSON]] {
        let folder = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures")
        return try ["configuration-keys.json", "encoder-configuration-keys.json"].reduce(into: [:]) { all, name in
            let classes = try #require(try JSON.read(folder.appendingPathComponent(name)).object)
            all.merge(classes.compactMapValues(\.object)) { $1 }
        }
    }

    static let families = ((try? classes()) ?? [:]).keys.sorted()

    private func model(_ family: String, _ fields: [String: JSON]) throws -> any LanguageModel {
        let fields = fields.merging(["model_type": .string(family)]) { $1 }
        return try ModelRegistry.outline(.object(fields), file: "config.json")
    }

    /// What the family read.
    private func settings(_ family: String, _ fields: [String: JSON]) throws -> Any {
        let model = try model(family, fields)
        if let model = model as? any EncoderDecoder { return model.settings }
        if let model = model as? any PretrainedEncoder { return model.settings }
        return try #require(model as? any CausalModel).settings
    }

    private func irrelevantKeys(_ family: String) throws -> Set<String> {
        switch try model(family, [:]).architecture {
        case .encoderDecoder:
            // BART's and mBART's heads have dropout.
            ConfigurationReader.irrelevantEncoderDecoderKeys.subtracting(
                ["bart", "mbart"].contains(family) ? ["classifier_dropout"] : [])
        case .encoder:
            // Positions of some encoders start after the padding token's id.
            ConfigurationReader.irrelevantEncoderKeys.union(
                ["roberta", "xlm-roberta-xl"].contains(family) ? [] : ["pad_token_id"])
        case .decoder: ConfigurationReader.irrelevantKeys.union(MultimodalText.irrelevantKeys)
        }
    }

    /// A configuration's values by name, RoPE by its frequencies.
    private func values(_ settings: Any) -> [String: String] {
        var values: [String: String] = [:]
        for child in Mirror(reflecting: settings).children {
            guard let label = child.label, label != "json", label != "family" else { continue }
            func add(_ rotary: RotaryPositions, _ name: String) {
                values[name] = "\(rotary.frequencies) · \(rotary.attentionFactor)"
            }
            if let rotary = child.value as? RotaryPositions {
                add(rotary, label)
            } else {
                values[label] = String(describing: child.value)
            }
            if let rotary = (child.value as? DecoderAttention.Settings)?.rotary { add(rotary, label + ".rotary") }
            if let stack = child.value as? BARTConfiguration.Stack {
                for part in Mirror(reflecting: stack).children {
                    values["\(label).\(part.label ?? "")"] = String(describing: part.value)
                }
            }
        }
        return values
    }

    @Test func theFamiliesAreThere() { #expect(Self.families.count >= 15) }

    /// An invalid value of a key that is read is an error that names it.
    @Test(arguments: families) func everyKeyIsReadOrIrrelevant(family: String) throws {
        let keys = try #require(try Self.classes()[family])
        let irrelevant = try irrelevantKeys(family)
        func check(_ key: String, _ fields: [String: JSON], besides others: [String: JSON] = [:]) throws {
            if irrelevant.contains(key) {
                #expect(try values(settings(family, fields)) == values(settings(family, others)), "\(key)")
            } else {
                let error = try #require(throws: PEFTError.self, "\(key) is not read") {
                    try settings(family, fields)
                }
                #expect(error.problem.contains("'\(key)'"), "\(error.problem)")
            }
        }
        for key in keys.keys.sorted() { try check(key, [key: "?"]) }
        for key in (keys["text_config"]?.object ?? [:]).keys.sorted() where key != "model_type" {
            // An empty text part has other defaults than a missing one.
            try check(key, ["text_config": [key: "?"]], besides: ["text_config": [:]])
        }
    }

    @Test(arguments: families) func missingKeysHaveTransformersValues(family: String) throws {
        let keys = try #require(try Self.classes()[family])
        let (empty, complete) = (values(try settings(family, [:])), values(try settings(family, keys)))
        #expect(empty.count > 15)
        for (name, value) in complete { #expect(empty[name] == value, "\(name)") }
    }
}
