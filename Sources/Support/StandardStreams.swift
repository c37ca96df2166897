import Foundation

/// Standard input, output and error by their descriptors, any of which may be closed, full or gone.
///
/// Foundation's `FileHandle.write` and `readDataToEndOfFile` crash on system errors, and
/// Swift's `print` ignores it. Everything the program reads or writes through a standard stream goes through here.
package enum StandardStreams {
    /// How long a write waits for a reader: a pipe may be full, and a terminal may be stopped.
    package enum Patience: Sendable {
        case untilWritten
        case milliseconds(Int32)
    }

    /// Opens `/dev/null` in place of standard streams that are closed, so that no file which is opened later gets
    /// their descriptors and receives what is written to them. Writing to such a stream, or reading from it, fails
    /// with `EBADF` as before.
    package static func reserveClosed() {
        for (descriptor, mode) in [(STDIN_FILENO, O_WRONLY), (STDOUT_FILENO, O_RDONLY), (STDERR_FILENO, O_RDONLY)] {
            guard fcntl(descriptor, F_GETFD) == -1, errno == EBADF else { continue }
            let opened = open("/dev/null", mode)
            guard opened >= 0, opened != descriptor else { continue }
            dup2(opened, descriptor)
            close(opened)
        }
    }

    /// Writes all bytes of a text, continuing after partial writes.
    /// - Returns: `nil`, or the system's error number; `EAGAIN` if `patience` ran out first.
    package static func write(_ text: String, to descriptor: Int32, _ patience: Patience = .untilWritten) -> Int32? {
        var bytes = Array(text.utf8)[...]
        return withoutPipeSignal {
            while !bytes.isEmpty {
                if case .milliseconds(let limit) = patience, !isWritable(descriptor, within: limit) { return EAGAIN }
                let count = bytes.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
                if count >= 0 {
                    bytes = bytes.dropFirst(count)
                    continue
                }
                switch errno {
                case EINTR: continue
                case EAGAIN, EWOULDBLOCK: _ = isWritable(descriptor, within: -1)
                case let code: return code
                }
            }
            return nil
        }
    }

    /// All bytes up to the end of a stream.
    /// - Throws: ``PEFTError`` where it is closed or can't be read.
    package static func readToEnd(_ descriptor: Int32 = STDIN_FILENO) throws -> Data {
        var data = Data()
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                data.append(contentsOf: buffer[..<count])
                continue
            }
            if count == 0 { return data }
            switch errno {
            case EINTR: continue
            case EAGAIN, EWOULDBLOCK:
                var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                poll(&wait, 1, -1)
            case let code:
                throw PEFTError(
                    "can't read standard input: \(reason(code))", remedy: "pipe text in, or redirect a file")
            }
        }
    }

    /// The system's message for an error number.
    package static func reason(_ code: Int32) -> String {
        code == EBADF ? "it is closed" : String(cString: strerror(code))
    }

    private static func isWritable(_ descriptor: Int32, within milliseconds: Int32) -> Bool {
        var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        // An error or a hang-up counts as writable: the write then reports it.
        return poll(&wait, 1, milliseconds) != 0
    }

    /// Runs `body` such that a pipe without a reader is the error `EPIPE` and no signal, whatever the program does at
    /// a `SIGPIPE` that somebody sends.
    private static func withoutPipeSignal<Result>(_ body: () -> Result) -> Result {
        var signals = sigset_t()
        var before = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGPIPE)
        let wasPending = isPending(SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &signals, &before)
        defer {
            if !wasPending, isPending(SIGPIPE) {
                var number: Int32 = 0
                sigwait(&signals, &number)
            }
            pthread_sigmask(SIG_SETMASK, &before, nil)
        }
        return body()
    }

    private static func isPending(_ number: Int32) -> Bool {
        var pending = sigset_t()
        sigpending(&pending)
        return sigismember(&pending, number) == 1
    }
}
