import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN

/// Checkpoints of one run: the trained parameters, the optimizer state, and the run's progress. A new checkpoint
/// replaces the old one atomically, so that a crash at any moment leaves a complete one.
final class CheckpointStore {
    struct State: Codable {
        var step: Int
        var history: TrainingHistory
        var fingerprint: RunFingerprint
    }

    /// Prefix of the method's tensors, which are stored with the optimizer state.
    private static let hookPrefix = "method."
    let folder: URL
    private let fingerprint: RunFingerprint
    private var newest: URL { Self.newest(in: folder) }
    private var best: URL { folder.appendingPathComponent("best.safetensors") }
    /// Keeps two runs from overwriting each other's checkpoints.
    private let lock: FolderLock

    /// The newest checkpoint in a run's folder.
    static func newest(in folder: URL) -> URL { folder.appendingPathComponent("newest") }

    init(_ folder: URL, fingerprint: RunFingerprint) throws {
        (self.folder, self.fingerprint) = (folder, fingerprint)
        lock = try FolderLock.hold(folder)
        for file in [newest, best] { AtomicFile.removeLeftovers(of: file) }
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

    /// - Returns: `nil` if there is no checkpoint yet.
    func load(
        into parameters: () -> [Parameter], _ optimizer: () -> any Optimizer, _ hook: (any TrainingHook)?
    ) throws -> State? {
        let file = newest.appendingPathComponent("state.json")
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        guard let data = try? Data(contentsOf: file), let state = try? JSONDecoder().decode(State.self, from: data)
        else {
            throw PEFTError("\(file.path) is damaged", remedy: "remove \(folder.path) to start from scratch")
        }
        if let difference = fingerprint.difference(from: state.fingerprint) {
            throw PEFTError(
                "the checkpoint in \(folder.path) was written with \(difference)",
                remedy: "use the same settings and data, or another output folder")
        }
        let stored = try SafetensorsFile(newest.appendingPathComponent("optimizer.safetensors"))
        try withTorchErrors {
            let values = Dictionary(uniqueKeysWithValues: try stored.entries.keys.map { ($0, try stored.tensor($0)) })
            // The method first: it may change the shapes of parameters, which those of the optimizer state follow.
            let own = values.filter { $0.key.hasPrefix(Self.hookPrefix) }
            try hook?.restore(
                Dictionary(uniqueKeysWithValues: own.map { (String($0.dropFirst(Self.hookPrefix.count)), $1) }),
                step: state.step)
            try optimizer().restore(values.filter { !$0.key.hasPrefix(Self.hookPrefix) }, step: state.step)
        }
        try Self.fill(parameters(), from: newest.appendingPathComponent("parameters.safetensors"))
        return state
    }

    /// The step of the newest checkpoint.
    var newestStep: Int? {
        struct Progress: Decodable { var step: Int }
        return (try? Data(contentsOf: newest.appendingPathComponent("state.json")))
            .flatMap { try? JSONDecoder().decode(Progress.self, from: $0) }?.step
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
