import Foundation

/// A folder in `TMPDIR` that exists as long as this object. Folders left by killed processes are removed when the next
/// one is created.
package final class TemporaryFolder {
    package let url: URL
    private let descriptor: Int32

    /// - Throws: ``PEFTError`` if it can't be created.
    package init() throws {
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
