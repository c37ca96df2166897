import Foundation
import PEFTSupport

/// The lock of Python's `filelock`: `flock` on a file that stays open while the lock is held. The system
/// releases it when the process ends for any reason.
struct CacheLock: ~Copyable {
    private let descriptor: Int32

    /// Waits for the lock.
    /// - Throws: ``PEFTError`` if the file can't be created; ``HTTPFailure/cancelled``.
    init(_ file: URL, isCancelled: () -> Bool, whileWaiting: () -> Void = {}) throws {
        while true {
            let descriptor = open(file.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o664)
            guard descriptor >= 0 else {
                throw PEFTError(
                    "can't lock \(file.path): \(String(cString: strerror(errno)))",
                    remedy: "check permissions, or set HF_HOME to another folder")
            }
            // On a file system without locks, checksums are the only protection, which suffices for correct
            // results.
            while flock(descriptor, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK || errno == EINTR {
                if isCancelled() {
                    close(descriptor)
                    throw HTTPFailure.cancelled
                }
                whileWaiting()
                usleep(50_000)
            }
            var (held, named) = (stat(), stat())
            // The previous holder may have removed the file.
            if fstat(descriptor, &held) == 0, stat(file.path, &named) == 0, held.st_ino == named.st_ino {
                self.descriptor = descriptor
                return
            }
            close(descriptor)
        }
    }

    deinit { close(descriptor) }
}
