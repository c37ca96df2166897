import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Training

/// The records of one run of `peft train`. A failure to write them is a warning: the run goes on without.
final class TrainingLog {
    private var log: RunLog?
    private let model: any LanguageModel
    private let samples: ValidationSamples?
    /// The checkpoint folder, if the records are in it until the run ends.
    private let checkpoints: CheckpointFolder?

    /// - Parameters:
    ///   - folder: the folder of `--log-dir`; `nil` keeps the records with the checkpoints.
    ///   - step: the last step of the checkpoint from which the run is resumed.
    init(
        _ folder: URL?, _ checkpoints: CheckpointFolder, _ description: RunDescription, resumingAfter step: Int?,
        model: any LanguageModel, samples: ValidationSamples?
    ) {
        (self.model, self.samples) = (model, samples)
        self.checkpoints = folder == nil ? checkpoints : nil
        attempt {
            log = try RunLog(
                folder ?? checkpoints.url.appendingPathComponent(RunLog.folderName), description, resumingAfter: step)
        }
    }

    private func attempt(_ body: () throws -> Void) {
        do { try body() } catch {
            Console.warn("the run's records end here: \((error as? PEFTError)?.problem ?? "\(error)")")
            log = nil
        }
    }

    func note(_ event: TrainingEvent) {
        guard let log else { return }
        attempt {
            try log.record(event)
            guard case .validation(let step, _, _) = event, let samples else { return }
            try log.record(samples.generate(model), step: step)
        }
    }

    /// Runs `body`, the training, and records how it ends.
    func recording<Result>(_ body: () throws -> Result) throws -> Result {
        do {
            let result = try body()
            attempt { try log?.end(.finished) }
            return result
        } catch {
            let isInterrupted = error is TrainingInterrupted
            attempt {
                try log?.end(
                    isInterrupted ? .interrupted : .failed,
                    message: isInterrupted
                        ? nil : (error as? PEFTError)?.problem ?? (error as? TrainingDiverged)?.what ?? "\(error)")
            }
            removeUnused()
            throw error
        }
    }

    /// Removes the records of a run that left no checkpoint: it leaves nothing beside its output.
    private func removeUnused() {
        guard let checkpoints, !checkpoints.hasCheckpoint, let log else { return }
        try? FileManager.default.removeItem(at: log.folder)
    }

    /// Copies the records into the folder of the result, unless they have one of their own.
    func copy(into folder: URL) {
        guard checkpoints != nil, let log else { return }
        let target = folder.appendingPathComponent(RunLog.folderName)
        do { try FileManager.default.copyItem(at: log.folder, to: target) } catch {
            Console.warn("the run's records can't be copied to the output folder")
        }
    }
}
