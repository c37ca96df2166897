import Foundation
import PEFTSupport

/// A file that grows by whole records, so that others can read it meanwhile.
final class AppendedFile {
    private let file: URL
    private let descriptor: Int32

    /// Opens the file, or creates it.
    /// - Throws: ``PEFTError`` with the system's reason.
    init(_ file: URL) throws {
        self.file = file
        descriptor = open(file.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw PEFTError(
                "can't write \(file.path): \(String(cString: strerror(errno)))",
                remedy: "check permissions and free space")
        }
    }

    deinit { close(descriptor) }

    func append(_ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try AtomicFile.writeAll($0, to: descriptor, name: file.path) }
    }

    func append(_ text: String) throws { try append(Array(text.utf8)) }
}
