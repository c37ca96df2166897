import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN

/// The settings and data that must match between a checkpoint and the run that resumes it.
struct RunFingerprint: Codable {
    private var configuration: JSON
    private var method: String
    private var methodFields: [String: JSON]
    let data: String
    /// A digest of the model's configuration and of some of its weights. Older checkpoints lack it and the seed.
    let base: String?
    /// Seed of the adapter's initial values, some of which may be frozen.
    private var seed: UInt64?
    /// Command-line names of the method's fields, by their keys in files.
    private var options: [String: String] = [:]

    private enum CodingKeys: String, CodingKey { case configuration, method, methodFields, data, base, seed }

    init(
        _ configuration: TrainingConfiguration, _ adapter: Adapter, _ training: EncodedRows,
        _ validation: [EncodedExample]
    ) throws {
        self.configuration = try Self.json(configuration)
        method = adapter.choice.method.name
        methodFields = adapter.choice.configuration.json
        options = adapter.choice.configuration.optionNames
        var digest = Digest()
        for example in [training, EncodedRows(validation)].joined() { digest.add(example) }
        data = digest.text
        base = Self.digest(adapter.model)
        seed = adapter.seed
    }

    private static func json(_ configuration: TrainingConfiguration) throws -> JSON {
        try JSON.parse(JSONEncoder().encode(configuration), name: "the training configuration")
    }

    /// A digest of the model's configuration and of the first values of every tensor.
    private static func digest(_ model: any LanguageModel) -> String {
        var digest = Digest()
        digest.add(model.configuration.text(indent: nil).utf8.map { Int($0) })
        for (path, parameter) in model.parameters() {
            digest.add(path.utf8.map { Int($0) })
            digest.add(parameter.tensor.shape)
            guard parameter.tensor.count > 0 else { continue }
            let first = model.partitionedBase?.partitioned(parameter.tensor)?.firstValues
            digest.add((first ?? parameter.tensor.firstValues).map { Int($0.bitPattern) })
        }
        return digest.text
    }

    /// The first setting that differs from `stored`, with both values; `nil` if none does.
    func difference(from stored: RunFingerprint) -> String? {
        if method != stored.method { return "--method \(stored.method), but this run uses \(method)" }
        if let difference = Self.difference(
            methodFields, stored.methodFields, defaults: [:], option: { options[$0] ?? $0 })
        {
            return difference
        }
        // A checkpoint of an earlier version lacks newer settings, which then had their default values.
        let defaults = (try? Self.json(TrainingConfiguration()))?.object ?? [:]
        if let difference = Self.difference(
            configuration.object ?? [:], stored.configuration.object ?? [:], defaults: defaults,
            option: TrainingConfiguration.optionName)
        {
            return difference
        }
        if data != stored.data { return "other training or validation examples" }
        if let base, let known = stored.base, base != known { return "another base model" }
        if let seed, let known = stored.seed, seed != known {
            return "seed \(known) of the adapter, but this run uses \(seed)"
        }
        return nil
    }

    private static func difference(
        _ fields: [String: JSON], _ stored: [String: JSON], defaults: [String: JSON], option: (String) -> String
    ) -> String? {
        func value(_ fields: [String: JSON], _ key: String) -> JSON { fields[key] ?? defaults[key] ?? .null }
        let keys = Set(fields.keys).union(stored.keys).sorted()
        guard let key = keys.first(where: { value(fields, $0) != value(stored, $0) }) else { return nil }
        let (now, before) = (value(fields, key), value(stored, key))
        return before == .null
            ? "no --\(option(key)), but this run uses \(now.shown)"
            : "--\(option(key)) \(before.shown), but this run uses \(now == .null ? "none" : now.shown)"
    }
}

extension JSON {
    /// The value as written on the command line.
    fileprivate var shown: String {
        switch self {
        case .string(let text): text
        case .number(let value): Int(exactly: value).map(String.init) ?? "\(value)"
        case .array(let values): values.map(\.shown).joined(separator: ",")
        default: text(indent: nil)
        }
    }
}

extension TrainingConfiguration {
    /// The command-line name of a coding key.
    static func optionName(_ field: String) -> String {
        switch field {
        case "accumulation": "accumulate"
        case "headLearningRate": "head-lr"
        default:
            field.map { $0.isUppercase ? "-" + $0.lowercased() : String($0) }.joined()
        }
    }
}

/// A 64-bit FNV-1a digest (Fowler, Noll, Vo) of datasets.
package struct Digest {
    private var value: UInt64 = 0xcbf2_9ce4_8422_2325

    package init() {}

    package mutating func add(_ ids: [Int]) {
        for id in ids + [-1] {
            value ^= UInt64(bitPattern: Int64(id))
            value = value &* 0x100_0000_01b3
        }
    }

    package mutating func add(_ text: String) { add(text.utf8.map { Int($0) }) }

    /// Adds everything of an example that affects training.
    package mutating func add(_ example: EncodedExample) {
        add(example.input)
        add(example.target)
        add(example.row.segments)
        for text in example.row.candidates { add(text) }
        add(example.row.score.map { [Int(bitPattern: UInt(truncatingIfNeeded: $0.bitPattern))] } ?? [])
        if let loss = example.loss { add(loss.map { $0 ? 1 : 0 }) }
    }

    package var text: String { String(value, radix: 16) }
}
