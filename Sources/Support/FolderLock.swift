import Foundation
import Synchronization

/// The right of one process to write into a folder: an advisory lock (`flock`) on a file in it, which the system
/// releases when the process ends, however it ends.
///
/// Within a process the same folder gives the same lock. When nobody uses it any more, its file is removed, and the
/// folder too if that leaves it empty.
package final class FolderLock: Sendable {
    static let fileName = "lock"

    package let folder: URL
    /// The file that is locked; it says who holds it.
    package var file: URL { folder.appendingPathComponent(Self.fileName) }
    private let descriptor: Int32

    private struct Held: Sendable {
        weak var lock: FolderLock?
    }
    private static let held = Mutex<[String: Held]>([:])

    /// Locks a folder, which is created if it doesn't exist.
    /// - Throws: ``PEFTError`` that says who holds it, or why it can't be created.
    package static func hold(_ folder: URL) throws -> FolderLock {
        try held.withLock { held in
            let path = folder.standardizedFileURL.path
            if let lock = held[path]?.lock { return lock }
            let lock = try FolderLock(folder)
            held[path] = Held(lock: lock)
            return lock
        }
    }

    private init(_ folder: URL) throws {
        self.folder = folder
        let file = folder.appendingPathComponent(Self.fileName)
        // Whoever held it may be removing its file, or the folder, at this moment.
        for _ in 0..<100 {
            do { try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true) } catch {
                throw PEFTError("can't create \(folder.path)", remedy: "check permissions and free space")
            }
            let descriptor = open(file.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            guard descriptor >= 0 else {
                if errno == ENOENT { continue }
                throw AtomicFile.failure("can't write", file.path)
            }
            // File systems without locks are used without.
            if flock(descriptor, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK {
                let holder = Self.holder(descriptor)
                close(descriptor)
                throw PEFTError(
                    "another run is writing to \(folder.path)\(holder)",
                    remedy: "wait until it ends, or choose another output")
            }
            guard Self.isSame(descriptor, file) else {
                close(descriptor)
                continue
            }
            ftruncate(descriptor, 0)
            let text =
                "\(getpid())\n\(ProcessInfo.processInfo.hostName)\n\(ISO8601DateFormatter().string(from: Date()))\n"
            // Who holds it is a courtesy; the lock is there without.
            try? Data(text.utf8).withUnsafeBytes { try AtomicFile.writeAll($0, to: descriptor, name: file.path) }
            self.descriptor = descriptor
            return
        }
        throw PEFTError("can't lock \(folder.path)", remedy: "wait until other runs end, or choose another output")
    }

    deinit {
        if Self.isSame(descriptor, file) {
            unlink(file.path)
            rmdir(folder.path)
        }
        close(descriptor)
    }

    /// What the holder wrote about itself, in parentheses.
    private static func holder(_ descriptor: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = bytes.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, 0) }
        let lines = String(decoding: bytes[..<max(0, count)], as: UTF8.self).split(separator: "\n")
        guard lines.count == 3 else { return "" }
        return " (process \(lines[0]) on \(lines[1]), since \(lines[2]))"
    }

    /// Whether the name still means the open file.
    private static func isSame(_ descriptor: Int32, _ file: URL) -> Bool {
        var (opened, named) = (stat(), stat())
        return fstat(descriptor, &opened) == 0 && stat(file.path, &named) == 0
            && opened.st_ino == named.st_ino && opened.st_dev == named.st_dev
    }
}
