import Foundation

/// A folder in `TMPDIR` that lasts as long as this object. Those that killed processes left are removed when the next
/// one is made.
public final class TemporaryFolder {
    public let url: URL
    private let descriptor: Int32

    /// - Throws: ``PEFTError`` where it can't be created.
    public init() throws {
        let parent = FileManager.default.temporaryDirectory
        AtomicFile.sweep(parent) { $0.hasPrefix("peft-") }
        url = parent.appendingPathComponent("peft-\(UUID().uuidString).tmp-\(getpid())")
        do { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) } catch {
            throw PEFTError(
                "can't create the folder \(url.path): \(error.localizedDescription)",
                remedy: "set TMPDIR to another folder")
        }
        descriptor = AtomicFile.lock(url)
    }

    deinit {
        try? FileManager.default.removeItem(at: url)
        if descriptor >= 0 { close(descriptor) }
    }
}
