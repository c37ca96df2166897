import Foundation
import Support

/// The lock that Python's `filelock` takes too: `flock` on a file that is open as long as the lock is held. The system
/// lets go of it when a process ends, however it ends.
struct CacheLock: ~Copyable {
    private let descriptor: Int32

    /// Waits for the lock.
    /// - Throws: ``PEFTError`` if the file can't be made; ``HTTPFailure/cancelled``.
    init(_ file: URL, isCancelled: () -> Bool, whileWaiting: () -> Void = {}) throws {
        while true {
            let descriptor = open(file.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o664)
            guard descriptor >= 0 else {
                throw PEFTError(
                    "can't lock \(file.path): \(String(cString: strerror(errno)))",
                    remedy: "check permissions, or set HF_HOME to another folder")
            }
            // A file system without locks leaves checksums as the only protection, which is enough for what is
            // finished in the end to be right.
            while flock(descriptor, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK || errno == EINTR {
                if isCancelled() {
                    close(descriptor)
                    throw HTTPFailure.cancelled
                }
                whileWaiting()
                usleep(50_000)
            }
            var (held, named) = (stat(), stat())
            // Whoever had it before may have removed the file.
            if fstat(descriptor, &held) == 0, stat(file.path, &named) == 0, held.st_ino == named.st_ino {
                self.descriptor = descriptor
                return
            }
            close(descriptor)
        }
    }

    deinit { close(descriptor) }
}
