import Foundation

/// Writes that leave either the old content or the new, never a part.
package enum AtomicFile {
    /// Writes `data` to `file` through a temporary file: write, flush to disk, atomic rename.
    /// - Throws: ``PEFTError`` naming the file and the system's reason (no space left, no permission …).
    package static func write(_ data: Data, to file: URL, replacing: Bool = true) throws {
        try write(to: file, replacing: replacing) { descriptor in
            try data.withUnsafeBytes { try writeAll($0, to: descriptor, name: file.path) }
        }
    }

    package static func write(_ text: String, to file: URL, replacing: Bool = true) throws {
        try write(Data(text.utf8), to: file, replacing: replacing)
    }

    /// Calls `body` with the descriptor of a temporary file beside `file`, then flushes it to disk and
    /// renames it to `file`. If `body` throws, the temporary file is removed and `file` stays as it was.
    ///
    /// A device or a pipe, such as `/dev/stdout`, is written to as it is.
    ///
    /// - Parameter replacing: whether a file of that name is replaced; if not, it is an error.
    package static func write(to file: URL, replacing: Bool = true, _ body: (Int32) throws -> Void) throws {
        if isDevice(file) {
            let descriptor = open(file.path, O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw failure("can't write", file.path) }
            defer { close(descriptor) }
            return try body(descriptor)
        }
        let temporary = temporaryFile(of: file)
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw failure("can't write", file.path) }
        // Held while the file grows, so that it is not taken for a killed process's.
        flock(descriptor, LOCK_EX | LOCK_NB)
        var isOpen = true
        do {
            try body(descriptor)
            guard fsync(descriptor) == 0 else { throw failure("can't write", file.path) }
            isOpen = false
            guard close(descriptor) == 0 else { throw failure("can't write", file.path) }
            try rename(temporary, to: file, replacing: replacing)
        } catch {
            if isOpen { close(descriptor) }
            unlink(temporary)
            throw error
        }
        flushFolder(file.deletingLastPathComponent())
    }

    /// Fills a new folder under a temporary name and renames it to `folder` when `body` succeeded.
    /// - Parameter replacing: whether an existing `folder` is replaced as a whole; if not, it is an error.
    /// - Throws: what `body` throws, or ``PEFTError``; then `folder` is as it was.
    package static func writeFolder(_ folder: URL, replacing: Bool = true, _ body: (URL) throws -> Void) throws {
        let files = FileManager.default
        let parent = folder.deletingLastPathComponent()
        let temporary = temporaryFolder(of: folder)
        try? files.removeItem(at: temporary)
        do { try files.createDirectory(at: temporary, withIntermediateDirectories: true) } catch {
            throw PEFTError("can't create \(folder.path)", remedy: "check permissions and free space")
        }
        let lock = lock(temporary)
        defer { if lock >= 0 { close(lock) } }
        do {
            try body(temporary)
            flushFolder(temporary)
            if replacing {
                try replace(folder, with: temporary)
            } else {
                try rename(temporary.path, to: folder, replacing: false)
            }
        } catch {
            try? files.removeItem(at: temporary)
            throw error
        }
        flushFolder(parent)
    }

    /// Gives `temporary` the name `folder` and removes what had it before.
    private static func replace(_ folder: URL, with temporary: URL) throws {
        let files = FileManager.default
        guard files.fileExists(atPath: folder.path) else {
            return try rename(temporary.path, to: folder, replacing: true)
        }
        // Exchanged in one go where the file system can: there is no moment without a complete folder.
        if exchange(temporary.path, folder.path) {
            try? files.removeItem(at: temporary)
            return
        }
        let replaced = folder.deletingLastPathComponent()
            .appendingPathComponent(".\(folder.lastPathComponent).old-\(getpid())")
        try? files.removeItem(at: replaced)
        guard Foundation.rename(folder.path, replaced.path) == 0 else { throw failure("can't replace", folder.path) }
        guard Foundation.rename(temporary.path, folder.path) == 0 else {
            let error = failure("can't write", folder.path)
            Foundation.rename(replaced.path, folder.path)
            throw error
        }
        try? files.removeItem(at: replaced)
    }

    private static func rename(_ temporary: String, to file: URL, replacing: Bool) throws {
        guard !replacing else {
            guard Foundation.rename(temporary, file.path) == 0 else { throw failure("can't write", file.path) }
            return
        }
        let taken = PEFTError(
            "the output \(file.path) already exists, created by another program in the meantime",
            remedy: "remove it or choose another output")
        if rename(temporary, file.path, .keeping) { return }
        if errno == EEXIST || errno == ENOTEMPTY { throw taken }
        // The file system can't do that in one go.
        guard !FileManager.default.fileExists(atPath: file.path) else { throw taken }
        guard Foundation.rename(temporary, file.path) == 0 else { throw failure("can't write", file.path) }
    }

    /// Swaps the names of two files or folders.
    /// - Returns: whether that was possible; if not, nothing changed.
    private static func exchange(_ a: String, _ b: String) -> Bool { rename(a, b, .exchanging) }

    private enum RenameKind {
        /// Each gets the other's name.
        case exchanging
        /// Nothing of the new name is replaced.
        case keeping
    }

    /// - Returns: whether that was possible; if not, nothing changed.
    private static func rename(_ a: String, _ b: String, _ kind: RenameKind) -> Bool {
        #if canImport(Darwin)
            return renamex_np(a, b, UInt32(kind == .exchanging ? RENAME_SWAP : RENAME_EXCL)) == 0
        #else
            // glibc has it, its header shows it to C alone.
            typealias Rename =
                @convention(c) (Int32, UnsafePointer<CChar>, Int32, UnsafePointer<CChar>, UInt32) -> Int32
            guard let symbol = dlsym(nil, "renameat2") else {
                errno = ENOSYS
                return false
            }
            let flag: UInt32 = kind == .exchanging ? 2 : 1
            return unsafeBitCast(symbol, to: Rename.self)(AT_FDCWD, a, AT_FDCWD, b, flag) == 0
        #endif
    }

    /// Writes every byte, continuing after partial writes.
    package static func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32, name: String) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Foundation.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw failure("can't write", name) }
            rest = rest.dropFirst(count)
        }
    }

    static func failure(_ action: String, _ path: String) -> PEFTError {
        let code = errno
        let remedy =
            switch code {
            case ENOSPC, EDQUOT: "free some space or name another folder"
            case EACCES, EPERM, EROFS: "name a folder you may write to"
            case ENOENT: "its folder doesn't exist"
            default: "nothing was changed"
            }
        return PEFTError("\(action) \(path): \(String(cString: strerror(code)))", remedy: remedy)
    }

    /// A rename is durable only once the folder that holds the name is on disk too.
    private static func flushFolder(_ folder: URL) {
        let descriptor = open(folder.path, O_RDONLY)
        guard descriptor >= 0 else { return }
        fsync(descriptor)
        close(descriptor)
    }
}
