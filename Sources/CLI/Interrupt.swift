import Foundation

/// Graceful interruption: the first `SIGINT` (Ctrl-C), `SIGTERM`, `SIGHUP` or `SIGPIPE` requests a stop; the second ends
/// the program at once.
enum Interrupt {
    nonisolated(unsafe) private static var flag: sig_atomic_t = 0
    /// A file and its folder, as C strings, to remove if a signal ends the program before the first checkpoint.
    nonisolated(unsafe) private static var unused:
        (file: UnsafeMutablePointer<CChar>, folder: UnsafeMutablePointer<CChar>)?
    private static let signals = [SIGINT, SIGTERM, SIGHUP]

    static var isRequested: Bool { flag != 0 }
    /// 128 + signal number, as a shell reports it; 130 (`SIGINT`) if no signal arrived.
    static var exitCode: Int32 { 128 + (flag == 0 ? SIGINT : Int32(flag)) }

    /// Records signals from now on instead of ending the program.
    /// - Parameter ofPipes: whether to handle `SIGPIPE` too, which is ignored otherwise.
    static func install(ofPipes: Bool = false) {
        handle(signals + (ofPipes ? [SIGPIPE] : [])) { number in
            if Interrupt.flag != 0 { _exit(128 + number) }
            Interrupt.flag = sig_atomic_t(number)
        }
        // The handler before may have read the paths until now.
        unused.map {
            free($0.file); free($0.folder)
        }
        unused = nil
    }

    /// Lets signals end the program after removing `file` and, if it is then empty, its folder.
    static func removing(_ file: URL) {
        if let path = strdup(file.path), let folder = strdup(file.deletingLastPathComponent().path) {
            unused = (path, folder)
        }
        handle(signals) { number in
            if let unused = Interrupt.unused {
                unlink(unused.file)
                // Fails, as intended, if the folder holds a checkpoint.
                rmdir(unused.folder)
            }
            _exit(128 + number)
        }
    }

    /// Restores the default handling of signals and clears a pending request.
    static func remove() {
        for number in signals { signal(number, SIG_DFL) }
        flag = 0
    }

    private static func handle(_ signals: [Int32], _ handler: @escaping @convention(c) (Int32) -> Void) {
        // The parent process may have blocked them.
        var unblocked = sigset_t()
        sigemptyset(&unblocked)
        for number in signals {
            sigaddset(&unblocked, number)
            let before = signal(number, handler)
            // Stay ignored under nohup.
            if number == SIGHUP, isIgnored(before) { signal(number, SIG_IGN) }
        }
        pthread_sigmask(SIG_UNBLOCK, &unblocked, nil)
    }

    private static func isIgnored(_ handler: (@convention(c) (Int32) -> Void)?) -> Bool {
        unsafeBitCast(handler, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
    }
}
