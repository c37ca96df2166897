import Foundation
import LanguageModels
import PEFT
import Support
import Torch
import TorchNN

/// Checkpoints of one run: the parameters in training, the optimizer's state, and where the run stands. A new
/// one replaces the old as a whole, so that a crash at any moment leaves a complete one.
final class CheckpointStore {
    struct State: Codable {
        var step: Int
        var history: TrainingHistory
        var fingerprint: RunFingerprint
    }

    /// Before the names of what the method remembers, beside the optimizer's state.
    private static let hookPrefix = "method."
    private let folder: URL
    private let fingerprint: RunFingerprint
    private var newest: URL { folder.appendingPathComponent("newest") }
    private var best: URL { folder.appendingPathComponent("best.safetensors") }

    init(_ folder: URL, fingerprint: RunFingerprint) throws {
        (self.folder, self.fingerprint) = (folder, fingerprint)
        do { try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true) } catch {
            throw PEFTError("can't create \(folder.path)", remedy: "check permissions and free space")
        }
    }

    func save(
        step: Int, history: TrainingHistory, _ parameters: [Parameter], _ optimizer: any Optimizer,
        _ hook: (any TrainingHook)?
    ) throws {
        let state = State(step: step, history: history, fingerprint: fingerprint)
        try AtomicFile.writeFolder(newest) { folder in
            try SafetensorsFile.write(
                Self.named(parameters), to: folder.appendingPathComponent("parameters.safetensors"))
            var values = optimizer.state()
            for (name, value) in hook?.state() ?? [:] { values[Self.hookPrefix + name] = value }
            try SafetensorsFile.write(values, to: folder.appendingPathComponent("optimizer.safetensors"))
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
            try AtomicFile.write(encoder.encode(state), to: folder.appendingPathComponent("state.json"))
        }
    }

    /// - Returns: `nil` where no checkpoint was written yet.
    func load(
        into parameters: () -> [Parameter], _ optimizer: () -> any Optimizer, _ hook: (any TrainingHook)?
    ) throws -> State? {
        let file = newest.appendingPathComponent("state.json")
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        guard let data = try? Data(contentsOf: file), let state = try? JSONDecoder().decode(State.self, from: data)
        else {
            throw PEFTError("\(file.path) is damaged", remedy: "remove \(folder.path) to start anew")
        }
        if let difference = fingerprint.difference(from: state.fingerprint) {
            throw PEFTError(
                "the checkpoint in \(folder.path) belongs to a run with another \(difference)",
                remedy: "use the same settings and data, or another output folder")
        }
        let stored = try SafetensorsFile(newest.appendingPathComponent("optimizer.safetensors"))
        try withTorchErrors {
            let values = Dictionary(uniqueKeysWithValues: try stored.entries.keys.map { ($0, try stored.tensor($0)) })
            // The method first: it may change the parameters' shapes, which the optimizer's state follows.
            let own = values.filter { $0.key.hasPrefix(Self.hookPrefix) }
            try hook?.restore(
                Dictionary(uniqueKeysWithValues: own.map { (String($0.dropFirst(Self.hookPrefix.count)), $1) }),
                step: state.step)
            try optimizer().restore(values.filter { !$0.key.hasPrefix(Self.hookPrefix) }, step: state.step)
        }
        try Self.fill(parameters(), from: newest.appendingPathComponent("parameters.safetensors"))
        return state
    }

    func saveBest(_ parameters: [Parameter]) throws { try SafetensorsFile.write(Self.named(parameters), to: best) }

    func loadBest(into parameters: [Parameter]) throws { try Self.fill(parameters, from: best) }

    func remove() { try? FileManager.default.removeItem(at: folder) }

    private static func named(_ parameters: [Parameter]) -> [String: Tensor] {
        Dictionary(
            uniqueKeysWithValues: parameters.enumerated().map {
                ("parameter.\($0.offset)", $0.element.tensor.detached())
            })
    }

    private static func fill(_ parameters: [Parameter], from url: URL) throws {
        let file = try SafetensorsFile(url)
        try withTorchErrors {
            for (index, parameter) in parameters.enumerated() {
                parameter.tensor.copy(from: try file.tensor("parameter.\(index)"))
            }
        }
    }
}

/// What a checkpoint must have in common with the run that continues it.
struct RunFingerprint: Codable, Equatable {
    private var configuration: TrainingConfiguration
    private var method: String
    private var methodFields: [String: JSON]
    private var data: String
    /// A digest of the model's configuration and of some of its weights. Older checkpoints have none, nor a seed.
    private var base: String?
    /// Of the adapter's initial values, some of which may never be trained.
    private var seed: UInt64?

    init(
        _ configuration: TrainingConfiguration, _ adapter: Adapter, _ training: EncodedRows,
        _ validation: [EncodedExample]
    ) {
        self.configuration = configuration
        self.configuration.memory = MemorySavings()
        method = adapter.choice.method.name
        methodFields = adapter.choice.configuration.json
        var digest = FNV1a()
        for example in [training, EncodedRows(validation)].joined() {
            digest.add(example.input)
            digest.add(example.target)
            digest.add(example.row.segments)
            for text in example.row.candidates { digest.add(text) }
            digest.add(example.row.score.map { [Int(bitPattern: UInt(truncatingIfNeeded: $0.bitPattern))] } ?? [])
            if let loss = example.loss { digest.add(loss.map { $0 ? 1 : 0 }) }
        }
        data = digest.text
        base = Self.digest(adapter.model)
        seed = adapter.seed
    }

    /// The first numbers of every tensor suffice to tell models apart.
    private static func digest(_ model: any LanguageModel) -> String {
        var digest = FNV1a()
        digest.add(model.configuration.text(indent: nil).utf8.map { Int($0) })
        for (path, parameter) in model.parameters() {
            digest.add(path.utf8.map { Int($0) })
            digest.add(parameter.tensor.shape)
            guard parameter.tensor.count > 0 else { continue }
            let first = withoutGradients {
                parameter.tensor.detached().reshaped(-1).narrowed(axis: 0, 0..<min(8, parameter.tensor.count))
                    .to(.float32).array(Float.self)
            }
            digest.add(first.map { Int($0.bitPattern) })
        }
        return digest.text
    }

    /// What differs, in words; `nil` if nothing does.
    func difference(from other: RunFingerprint) -> String? {
        if method != other.method { return "method (\(other.method))" }
        if methodFields != other.methodFields { return "configuration of \(method)" }
        if configuration != other.configuration { return "training setting" }
        if data != other.data { return "data set" }
        if let base, let known = other.base, base != known { return "base model" }
        if let seed, let known = other.seed, seed != known { return "seed of the adapter (\(known))" }
        return nil
    }
}

/// A 64-bit digest (Fowler, Noll, Vo) that tells data sets apart.
private struct FNV1a {
    private var value: UInt64 = 0xcbf2_9ce4_8422_2325
    mutating func add(_ ids: [Int]) {
        for id in ids + [-1] {
            value ^= UInt64(bitPattern: Int64(id))
            value = value &* 0x100_0000_01b3
        }
    }
    var text: String { String(value, radix: 16) }
}
