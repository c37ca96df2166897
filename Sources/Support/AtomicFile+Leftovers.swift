import Foundation

extension AtomicFile {
    static func temporaryFile(of file: URL) -> String { file.path + ".tmp-\(getpid())" }

    static func temporaryFolder(of folder: URL) -> URL {
        folder.deletingLastPathComponent().appendingPathComponent(".\(folder.lastPathComponent).tmp-\(getpid())")
    }

    /// Whether a path names a device, a pipe or a socket, which has no content to replace.
    package static func isDevice(_ file: URL) -> Bool {
        var status = stat()
        guard stat(file.path, &status) == 0 else { return false }
        return [S_IFCHR, S_IFIFO, S_IFSOCK].contains(status.st_mode & S_IFMT)
    }

    /// Checks that a file or folder can be written, by writing a page under the temporary name that it would get.
    /// - Throws: ``PEFTError`` with the system's reason: no permission, a read-only or full disk, a name too long …
    package static func checkWritable(_ output: URL, isFolder: Bool) throws {
        if !isFolder, isDevice(output) {
            guard access(output.path, W_OK) == 0 else { throw failure("can't write", output.path) }
            return
        }
        var parent = output.deletingLastPathComponent()
        var status = stat()
        // Missing folders above a folder are created with it.
        while isFolder, stat(parent.path, &status) != 0, errno == ENOENT, parent.path != "/" {
            parent.deleteLastPathComponent()
        }
        let name =
            isFolder ? ".\(output.lastPathComponent).tmp-\(getpid())" : "\(output.lastPathComponent).tmp-\(getpid())"
        let probe = parent.appendingPathComponent(name).path
        let descriptor = open(probe, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        // What a process with this one's number left says that there was permission.
        guard descriptor >= 0 || errno == EEXIST else { throw failure("can't write", output.path) }
        guard descriptor >= 0 else { return }
        defer {
            close(descriptor)
            unlink(probe)
        }
        try [UInt8](repeating: 0, count: 4096).withUnsafeBytes {
            try writeAll($0, to: descriptor, name: output.path)
        }
    }

    /// Removes the temporary files and folders that killed processes left for an output.
    ///
    /// One is removed if the process in its name doesn't exist and nobody holds the lock on it, which a writer on
    /// another machine or in another container would.
    package static func removeLeftovers(of output: URL) {
        let (parent, name) = (output.deletingLastPathComponent(), output.lastPathComponent)
        if !FileManager.default.fileExists(atPath: output.path) { restore(output) }
        sweep(parent) { entry in
            ["\(name).tmp-", ".\(name).tmp-", ".\(name).old-"].contains { entry.hasPrefix($0) }
        }
    }

    /// A process that was killed between two renames left the folder under the name for what is replaced.
    private static func restore(_ folder: URL) {
        let parent = folder.deletingLastPathComponent()
        let prefix = ".\(folder.lastPathComponent).old-"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: parent.path)) ?? []
        guard let name = names.first(where: { $0.hasPrefix(prefix) && isAbandoned($0) }) else { return }
        Foundation.rename(parent.appendingPathComponent(name).path, folder.path)
    }

    /// Removes what killed processes left in a folder, among the entries that `isOutput` accepts.
    static func sweep(_ parent: URL, where isOutput: (String) -> Bool) {
        for entry in (try? FileManager.default.contentsOfDirectory(atPath: parent.path)) ?? []
        where isOutput(entry) && isAbandoned(entry) {
            let url = parent.appendingPathComponent(entry)
            let descriptor = open(url.path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { continue }
            try? FileManager.default.removeItem(at: url)
        }
    }

    /// Whether a name ends in the number of a process that doesn't exist.
    private static func isAbandoned(_ name: String) -> Bool {
        guard let digits = name.split(separator: "-").last, let process = pid_t(digits), process > 1,
            name.hasSuffix(".tmp-\(digits)") || name.hasSuffix(".old-\(digits)")
        else { return false }
        return kill(process, 0) != 0 && errno == ESRCH
    }

    /// Locks a temporary folder, which shows others that it is in use.
    /// - Returns: a descriptor to close, or −1.
    static func lock(_ folder: URL) -> Int32 {
        let descriptor = open(folder.path, O_RDONLY | O_CLOEXEC)
        if descriptor >= 0 { flock(descriptor, LOCK_EX | LOCK_NB) }
        return descriptor
    }
}
