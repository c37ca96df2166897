import Foundation
import PEFTSupport

/// A partial download that grows over several attempts.
final class PartialFile {
    private let url: URL
    private var descriptor: Int32
    private(set) var size: Int

    /// Opens the file of an earlier attempt, or a new one, exclusively for this process.
    init(_ url: URL, isCancelled: () -> Bool) throws {
        self.url = url
        descriptor = open(url.path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw PartialFile.failure(url) }
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK || errno == EINTR {
            if isCancelled() {
                close(descriptor)
                throw HTTPFailure.cancelled
            }
            usleep(50_000)
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            close(descriptor)
            throw PartialFile.failure(url)
        }
        size = Int(status.st_size)
    }

    deinit { close(descriptor) }

    private static func failure(_ url: URL) -> PEFTError {
        let code = errno
        let isFull = code == ENOSPC || code == EDQUOT || code == EFBIG
        return PEFTError(
            "can't write \(url.path): \(String(cString: strerror(code)))",
            remedy: isFull
                ? "free some space, or set HF_HOME to a folder on another disk; then run the same command to resume"
                : "check permissions, or set HF_HOME to another folder")
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Self.failure(url) }
            size += count
            rest = rest.dropFirst(count)
        }
    }

    func truncate() throws {
        guard ftruncate(descriptor, 0) == 0 else { throw Self.failure(url) }
        size = 0
    }

    func flush() throws { guard fsync(descriptor) == 0 else { throw Self.failure(url) } }

    /// The checksum of the file's contents, of the same type as `other`.
    func checksum(like other: Checksum, isCancelled: () -> Bool) throws -> Checksum {
        var digest = Digest(for: other, count: size)
        let block = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { block.deallocate() }
        var place = 0
        while place < size {
            if isCancelled() { throw HTTPFailure.cancelled }
            let count = pread(descriptor, block.baseAddress, min(block.count, size - place), off_t(place))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Self.failure(url) }
            digest.add(UnsafeRawBufferPointer(rebasing: block[..<count]))
            place += count
        }
        return digest.finish()
    }

    /// Gives the file its final name.
    func rename(to target: URL) throws {
        guard Foundation.rename(url.path, target.path) == 0 else { throw Self.failure(target) }
        let folder = open(target.deletingLastPathComponent().path, O_RDONLY)
        guard folder >= 0 else { return }
        fsync(folder)
        close(folder)
    }

    func remove() { unlink(url.path) }
}
