import Foundation
import PEFTSupport

/// Writes the records of a training run while it runs: TensorBoard's event file, `metrics.csv`, `samples.jsonl` and
/// `run.json`.
package final class RunLog {
    /// Name of the folder of the records in a checkpoint folder and in an adapter folder, as in transformers.
    package static let folderName = "runs"

    package let folder: URL
    private var description: RunDescription
    private let events: EventFile
    private let metrics: AppendedFile

    /// Creates the folder and its files.
    /// - Parameter step: the last step of the checkpoint from which the run is resumed; records of later steps, which are
    ///   repeated, are removed. `nil` removes the records of an earlier run.
    /// - Throws: ``PEFTError`` if a file can't be written.
    package init(_ folder: URL, _ description: RunDescription, resumingAfter step: Int? = nil) throws {
        (self.folder, self.description) = (folder, description)
        let files = FileManager.default
        do { try files.createDirectory(at: folder, withIntermediateDirectories: true) } catch {
            throw PEFTError("can't create \(folder.path)", remedy: "check permissions and free space")
        }
        if let step {
            try Self.cut(folder, after: step)
        } else {
            for name in (try? files.contentsOfDirectory(atPath: folder.path)) ?? [] where Self.isRecord(name) {
                try? files.removeItem(at: folder.appendingPathComponent(name))
            }
        }
        // Of a killed process: they would be copied with the records.
        for name in [RunDescription.fileName, RunMetrics.fileName, ValidationSamples.fileName] {
            AtomicFile.removeLeftovers(of: folder.appendingPathComponent(name))
        }
        let file = folder.appendingPathComponent(RunMetrics.fileName)
        let isNew = !files.fileExists(atPath: file.path)
        metrics = try AppendedFile(file)
        if isNew { try metrics.append(RunMetrics.header) }
        events = try EventFile(in: folder, time: description.started, resumingAt: step.map { $0 + 1 })
        try description.write(into: folder)
    }

    /// Whether a folder holds the records of a run.
    package static func exists(in folder: URL) -> Bool {
        FileManager.default.fileExists(atPath: folder.appendingPathComponent(RunDescription.fileName).path)
    }

    private static func isRecord(_ name: String) -> Bool {
        [RunMetrics.fileName, ValidationSamples.fileName, RunDescription.fileName].contains(name)
            || name.hasPrefix("events.out.tfevents.") && name.contains(".swift-peft.")
    }

    /// Removes rows and samples of steps after `step`.
    private static func cut(_ folder: URL, after step: Int) throws {
        let rows = RunMetrics.read(in: folder).rows.filter { $0.step <= step }
        try AtomicFile.write(
            RunMetrics.header + rows.map(\.line).joined(), to: folder.appendingPathComponent(RunMetrics.fileName))
        let snapshots = ValidationSamples.read(in: folder).filter { $0.step <= step }
        guard !snapshots.isEmpty else { return }
        try AtomicFile.write(
            snapshots.map { try line($0) }.joined(), to: folder.appendingPathComponent(ValidationSamples.fileName))
    }

    private static func line(_ snapshot: ValidationSamples.Snapshot) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(snapshot), as: UTF8.self) + "\n"
    }

    /// Records a step or a validation; other events leave no record.
    package func record(_ event: TrainingEvent) throws {
        let time = Date().timeIntervalSince1970
        switch event {
        case .step(let progress):
            try metrics.append(RunMetrics.Row(progress, time: time).line)
            var scalars = [
                ("train/loss", progress.loss), ("train/learning_rate", progress.learningRate),
                ("train/grad_norm", progress.gradientNorm), ("train/epoch", progress.epoch),
                ("train/tokens_per_second", progress.tokensPerSecond),
            ]
            if let memory = progress.memory { scalars.append(("train/memory_bytes", Double(memory))) }
            try events.append(scalars.map { (tag: $0.0, value: $0.1) }, step: progress.step, time: time)
        case .validation(let step, let loss, _):
            try metrics.append(RunMetrics.Row(validationLoss: loss, step: step, time: time).line)
            try events.append([(tag: "eval/loss", value: loss)], step: step, time: time)
        case .checkpoint, .stoppedEarly: break
        }
    }

    /// Records texts generated after a step.
    package func record(_ samples: [ValidationSamples.Sample], step: Int) throws {
        let snapshot = ValidationSamples.Snapshot(
            step: step, time: Date().timeIntervalSince1970, samples: samples)
        try AppendedFile(folder.appendingPathComponent(ValidationSamples.fileName)).append(try Self.line(snapshot))
    }

    /// Records how the run ended.
    package func end(_ state: RunDescription.State, message: String? = nil) throws {
        (description.state, description.message) = (state, message)
        (description.process, description.host) = (nil, nil)
        try description.write(into: folder)
    }
}
