import Foundation
import Support

/// The folder for checkpoints of the run that writes an output: beside it, with `.checkpoint` after its name.
public struct CheckpointFolder: Sendable {
    public let url: URL

    /// - Parameter output: the folder or file that the finished run is to write.
    public init(of output: URL) {
        url = output.deletingLastPathComponent().appendingPathComponent(output.lastPathComponent + ".checkpoint")
    }

    private var newest: URL { url.appendingPathComponent("newest") }

    /// Whether a run left a checkpoint to continue from.
    public var hasCheckpoint: Bool { FileManager.default.fileExists(atPath: newest.path) }

    /// Keeps other runs from writing here, as long as the lock exists. An empty folder is removed after it.
    /// - Throws: ``PEFTError`` that says which process holds it.
    public func lock() throws -> FolderLock {
        let lock = try FolderLock.hold(url)
        AtomicFile.removeLeftovers(of: newest)
        return lock
    }

    /// Removes the checkpoints that a run left which was killed between saving its output and removing them.
    ///
    /// Does nothing unless the losses in the checkpoint are those of the run that wrote the output.
    public func removeIfFinished(_ output: URL) {
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
