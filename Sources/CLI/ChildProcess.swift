import Foundation
import PEFTSupport

/// Processes of this program that it starts itself.
enum ChildProcess {
    private static let parentVariable = "PEFT_PARENT"

    /// Starts this program again.
    /// - Parameters:
    ///   - variables: the environment.
    ///   - inheritsInput: whether it reads this process's standard input; otherwise `/dev/null`.
    ///   - closed: a descriptor that it doesn't inherit.
    /// - Throws: ``PEFTError`` with the system's reason.
    static func start(
        _ arguments: [String], _ variables: [String: String], inheritsInput: Bool = false, closed: Int32? = nil
    ) throws -> pid_t {
        let program = Bundle.main.executableURL?.path ?? CommandLine.arguments[0]
        let variables = variables.merging([parentVariable: "\(getpid())"]) { $1 }
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = variables.map { strdup("\($0)=\($1)") } + [nil]
        defer { for word in words + environment { free(word) } }
        #if canImport(Darwin)
            var (actions, attributes): (posix_spawn_file_actions_t?, posix_spawnattr_t?) = (nil, nil)
        #else
            var (actions, attributes) = (posix_spawn_file_actions_t(), posix_spawnattr_t())
        #endif
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        if let closed { posix_spawn_file_actions_addclose(&actions, closed) }
        if !inheritsInput { posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) }
        // A group of its own: a terminal's Ctrl-C then reaches it once, from this process.
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        var process: pid_t = 0
        let code = posix_spawn(&process, program, &actions, &attributes, &words, &environment)
        guard code == 0 else {
            throw PEFTError(
                "can't start \(program): \(String(cString: strerror(code)))", remedy: "use fewer processes")
        }
        return process
    }

    /// A process that ended.
    struct Exit {
        let process: pid_t
        /// The signal that killed it; 0 if it exited.
        let signal: Int32
        /// Its exit code, or 128 + signal.
        let code: Int32
    }

    /// The next child that has ended; `nil` if all are running.
    static func nextExit() -> Exit? {
        var state: Int32 = 0
        let process = waitpid(-1, &state, WNOHANG)
        guard process > 0 else { return nil }
        let signal = state & 0x7f
        return Exit(process: process, signal: signal, code: signal != 0 ? 128 + signal : (state >> 8) & 0xff)
    }

    /// Stops this process, as by SIGTERM, if the one that started it is killed.
    static func endWithParent() {
        guard let parent = ProcessInfo.processInfo.environment[parentVariable].flatMap({ pid_t($0) }) else { return }
        unsetenv(parentVariable)
        Thread.detachNewThread {
            while getppid() == parent { sleep(1) }
            kill(getpid(), SIGTERM)
        }
    }
}
