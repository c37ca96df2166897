import Foundation
import PEFTSupport
import Training

/// A training run as its records tell it, while it runs or later.
package struct TrainingRun: Codable, Sendable {
    /// Its output folder, relative to the folder of runs.
    package var name: String
    package var description: RunDescription
    package var rows: [RunMetrics.Row]
    package var samples: [ValidationSamples.Snapshot]

    /// Maximum number of rows and of snapshots of samples that are kept of a past run.
    private static let most = (rows: 2000, snapshots: 40)

    package init(
        name: String, description: RunDescription, rows: [RunMetrics.Row], samples: [ValidationSamples.Snapshot]
    ) {
        (self.name, self.description, self.rows, self.samples) = (name, description, rows, samples)
    }

    /// Reads the records in a folder.
    /// - Returns: `nil` without a readable description.
    package static func read(in folder: URL, name: String) -> TrainingRun? {
        guard let description = RunDescription.read(in: folder) else { return nil }
        return TrainingRun(
            name: name, description: description, rows: RunMetrics.read(in: folder).rows,
            samples: ValidationSamples.read(in: folder))
    }

    var steps: [RunMetrics.Row] { rows.filter { $0.loss != nil } }
    var validations: [RunMetrics.Row] { rows.filter { $0.validationLoss != nil } }
    var best: RunMetrics.Row? {
        validations.min { ($0.validationLoss ?? .infinity) < ($1.validationLoss ?? .infinity) }
    }
    package var state: RunDescription.State { description.actualState }

    /// The run without rows that its curves don't need, for keeping.
    package var thinned: TrainingRun {
        var run = self
        let steps = steps
        if steps.count > Self.most.rows {
            let stride = Double(steps.count - 1) / Double(Self.most.rows - 1)
            run.rows = (0..<Self.most.rows).map { steps[Int((Double($0) * stride).rounded())] } + validations
            run.rows.sort { $0.time < $1.time }
        }
        if samples.count > Self.most.snapshots {
            let stride = Double(samples.count - 1) / Double(Self.most.snapshots - 1)
            run.samples = (0..<Self.most.snapshots).map { samples[Int((Double($0) * stride).rounded())] }
        }
        run.description.state = state
        return run
    }

    /// The result in a few words, for lists.
    var summary: String {
        let numbers = NumberFormat.terminal
        var parts: [String] = []
        if let last = steps.last { parts.append("step \(last.step) of \(description.totalSteps)") }
        if let best, let loss = best.validationLoss {
            parts.append("best validation loss \(numbers.decimal(loss, places: 3))")
        } else if let loss = steps.last?.loss {
            parts.append("loss \(numbers.decimal(loss, places: 3))")
        }
        return parts.joined(separator: ", ")
    }
}
