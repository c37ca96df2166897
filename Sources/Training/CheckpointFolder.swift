import Foundation
import PEFTSupport

/// The checkpoint folder of a run: the output's path with `.checkpoint` appended.
package struct CheckpointFolder: Sendable {
    package let url: URL

    /// - Parameter output: the folder or file that the run writes at its end.
    package init(of output: URL) {
        url = output.deletingLastPathComponent().appendingPathComponent(output.lastPathComponent + ".checkpoint")
    }

    private var newest: URL { url.appendingPathComponent("newest") }

    /// Whether there is a checkpoint to resume from.
    package var hasCheckpoint: Bool { FileManager.default.fileExists(atPath: newest.path) }

    /// Locks the folder against other runs for the lifetime of the lock. An empty folder is removed afterwards.
    /// - Throws: ``PEFTError`` naming the process that holds the lock.
    package func lock() throws -> FolderLock {
        let lock = try FolderLock.hold(url)
        AtomicFile.removeLeftovers(of: newest)
        return lock
    }

    /// Removes the checkpoints of a run that was killed between saving its output and removing them.
    ///
    /// Does nothing unless the losses in the checkpoint are those of the run that wrote the output.
    package func removeIfFinished(_ output: URL) {
        struct State: Decodable { var history: TrainingHistory }
        guard hasCheckpoint, let record = try? TrainingRecord.read(in: output),
            let lock = try? lock(),
            let data = try? Data(contentsOf: newest.appendingPathComponent("state.json")),
            let state = try? JSONDecoder().decode(State.self, from: data), !state.history.training.isEmpty,
            record.history.training.starts(with: state.history.training)
        else { return }
        withExtendedLifetime(lock) { try? FileManager.default.removeItem(at: url) }
    }
}
