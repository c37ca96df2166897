import Foundation

/// A request to stop: the first Ctrl-C (`SIGINT`), `SIGTERM`, `SIGHUP` of a terminal that is gone, or `SIGPIPE` asks; the
/// second ends the program at once.
enum Interrupt {
    nonisolated(unsafe) private static var flag: sig_atomic_t = 0
    /// What is removed where a signal ends the program before anything is worth keeping: a file and its folder, as
    /// strings for C.
    nonisolated(unsafe) private static var unused:
        (file: UnsafeMutablePointer<CChar>, folder: UnsafeMutablePointer<CChar>)?
    private static let signals = [SIGINT, SIGTERM, SIGHUP]

    static var isRequested: Bool { flag != 0 }
    /// What a shell shows for a program that the signal ended; 130, as for Ctrl-C, where none came.
    static var exitCode: Int32 { 128 + (flag == 0 ? SIGINT : Int32(flag)) }

    /// Notes signals from now on, in place of ending the program.
    /// - Parameter ofPipes: whether `SIGPIPE`, which is ignored elsewhere, is one of them.
    static func install(ofPipes: Bool = false) {
        unused.map {
            free($0.file); free($0.folder)
        }
        unused = nil
        handle(signals + (ofPipes ? [SIGPIPE] : [])) { number in
            if Interrupt.flag != 0 { _exit(128 + number) }
            Interrupt.flag = sig_atomic_t(number)
        }
    }

    /// Lets signals end the program, which removes `file` and its folder, if that is empty then.
    static func removing(_ file: URL) {
        if let path = strdup(file.path), let folder = strdup(file.deletingLastPathComponent().path) {
            unused = (path, folder)
        }
        handle(signals) { number in
            if let unused = Interrupt.unused {
                unlink(unused.file)
                // Fails for a folder with a checkpoint, which stays.
                rmdir(unused.folder)
            }
            _exit(128 + number)
        }
    }

    /// Lets signals end the program again, and forgets one that asked to stop.
    static func remove() {
        for number in signals { signal(number, SIG_DFL) }
        flag = 0
    }

    private static func handle(_ signals: [Int32], _ handler: @escaping @convention(c) (Int32) -> Void) {
        // Whoever started the program may have left them blocked.
        var unblocked = sigset_t()
        sigemptyset(&unblocked)
        for number in signals {
            sigaddset(&unblocked, number)
            let before = signal(number, handler)
            // nohup
            if number == SIGHUP, isIgnored(before) { signal(number, SIG_IGN) }
        }
        pthread_sigmask(SIG_UNBLOCK, &unblocked, nil)
    }

    private static func isIgnored(_ handler: (@convention(c) (Int32) -> Void)?) -> Bool {
        unsafeBitCast(handler, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
    }
}
