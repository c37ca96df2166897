import Foundation
import PEFTSupport
import Torch

/// Finds the supported family that an unsupported model resembles most, and where they differ, for the error.
struct NearestFamily {
    let name: String
    /// Keys of the configuration that the family doesn't read.
    let unreadKeys: [String]
    /// Unexpected tensors of the files, and tensors of the family that are missing there; of the first layers only.
    let foreignTensors: [String]
    let missingTensors: [String]

    /// The number of layers that are compared.
    private static let layers = 2

    /// - Parameter folder: the folder of the configuration, which may have the weights.
    /// - Returns: `nil` if no family resembles it.
    init?(to configuration: JSON, type: String, folder: URL) {
        let fields = Self.shortened(configuration.object ?? [:])
        let stored = Self.tensorNames(in: folder)
        let candidates = ModelRegistry.families.compactMap { family -> (score: Double, candidate: Candidate)? in
            guard let candidate = Candidate(family.name, fields, stored) else { return nil }
            let likeness = Self.likeness(type, family.name)
            return (stored.isEmpty ? likeness : candidate.share + 0.01 * likeness, candidate)
        }
        guard let best = candidates.max(by: { $0.score < $1.score }), best.score > 0.3 else { return nil }
        name = best.candidate.name
        (foreignTensors, missingTensors) = (best.candidate.foreign, best.candidate.missing)
        unreadKeys = fields.keys.sorted().filter { key in
            guard !Self.isNeutral(key, fields[key]) else { return false }
            // A key that is read can't have any value.
            return Candidate(best.candidate.name, fields.merging([key: ["?": "?"]]) { $1 }, []) != nil
        }
    }

    /// As in `; the nearest is 'llama', which doesn't read 'a' and lacks the tensors 'b' (and 3 more)`.
    var sentence: String {
        func list(_ names: [String]) -> String {
            let shown = names.prefix(3).map { "'\($0)'" }.joined(separator: ", ")
            return names.count > 3 ? "\(shown) (and \(names.count - 3) more)" : shown
        }
        let parts = [
            unreadKeys.isEmpty ? nil : "doesn't read \(list(unreadKeys))",
            foreignTensors.isEmpty ? nil : "lacks the tensors \(list(foreignTensors))",
            missingTensors.isEmpty ? nil : "needs the tensors \(list(missingTensors))",
        ].compactMap { $0 }
        return "; the nearest is '\(name)'" + (parts.isEmpty ? "" : ", which " + parts.joined(separator: " and "))
    }

    /// A family's model of this configuration, compared with the stored tensors.
    private struct Candidate {
        let name: String
        let foreign: [String]
        let missing: [String]
        /// Number of tensors that both have, as a share of those that one has.
        let share: Double

        init?(_ name: String, _ fields: [String: JSON], _ stored: Set<String>) {
            let own = fields.merging(["model_type": .string(name)]) { $1 }
            guard let model = try? ModelRegistry.outline(.object(own), file: "config.json") else { return nil }
            self.name = name
            let paths = Set(model.parameters().map(\.path))
            let named = stored.map { (file: $0, path: paths.contains($0) ? $0 : model.canonicalName($0)) }
            let common = Set(named.map(\.path)).intersection(paths)
            foreign = named.filter { !paths.contains($0.path) && !model.isIgnorable($0.file) }.map(\.file).sorted()
            missing = stored.isEmpty ? [] : paths.subtracting(common).sorted()
            share = Double(common.count) / Double(max(1, paths.count + foreign.count))
        }
    }

    /// The configuration of the first layers.
    private static func shortened(_ fields: [String: JSON]) -> [String: JSON] {
        guard let count = fields["num_hidden_layers"]?.int, count > layers else { return fields }
        var fields = fields
        fields["num_hidden_layers"] = .integer(layers)
        for (key, value) in fields {
            if let list = value.array, list.count == count { fields[key] = .array(Array(list.prefix(layers))) }
        }
        return fields
    }

    /// Names of the stored tensors of the first layers; empty without weights.
    private static func tensorNames(in folder: URL) -> Set<String> {
        guard let files = try? TensorShards.files(in: folder, "model.safetensors", { try SafetensorsFile($0) })
        else { return [] }
        let names = files.flatMap(\.entries.keys).filter { name in
            name.split(separator: ".").compactMap { Int($0) }.first ?? 0 < layers
        }
        return Set(names)
    }

    /// Whether a key changes nothing in any family, or has a value that most likely changes nothing.
    private static func isNeutral(_ key: String, _ value: JSON?) -> Bool {
        let general: Set<String> = [
            "architectures", "auto_map", "chunk_size_feed_forward", "dtype", "id2label", "is_encoder_decoder",
            "label2id",
            "model_type", "name_or_path", "output_attentions", "output_hidden_states", "problem_type", "return_dict",
            "torch_dtype", "transformers_version",
        ]
        return value == .null || value == false || key.hasPrefix("_") || key.hasSuffix("_token_id")
            || general.contains(key) || ConfigurationReader.irrelevantKeys.contains(key)
            || ConfigurationReader.irrelevantEncoderDecoderKeys.contains(key)
            || ConfigurationReader.irrelevantEncoderKeys.contains(key)
    }

    /// The length of the common beginning of two names, as a share of the longer one.
    private static func likeness(_ a: String, _ b: String) -> Double {
        let common = zip(a, b).prefix { $0 == $1 }.count
        return Double(common) / Double(max(1, max(a.count, b.count)))
    }
}
