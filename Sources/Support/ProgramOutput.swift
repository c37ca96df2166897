import Foundation

/// The standard output of a program, read in chunks while it runs.
///
/// The program stays in this process's group, so that Ctrl-C at a terminal ends both, and it is killed if its output
/// isn't read to the end.
package final class ProgramOutput {
    private let name: String
    private let process: pid_t
    private let output: Int32
    /// An unnamed file for the program's standard error: a pipe without a reader would block it.
    private let messages: Int32
    private var isRunning = true

    /// The executable file that the shell would run for `name`.
    package static func find(_ name: String) -> URL? {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        return folders.map { URL(fileURLWithPath: String($0)).appendingPathComponent(name) }.first(
            where: isExecutable)
    }

    package static func isExecutable(_ file: URL) -> Bool {
        var isFolder = ObjCBool(false)
        return FileManager.default.fileExists(atPath: file.path, isDirectory: &isFolder) && !isFolder.boolValue
            && FileManager.default.isExecutableFile(atPath: file.path)
    }

    /// Starts a program.
    /// - Parameters:
    ///   - name: the name of the input in errors, such as its file.
    ///   - input: its standard input; `nil` for none.
    /// - Throws: ``PEFTError`` if it can't be started.
    package init(_ program: URL, _ arguments: [String], input: URL? = nil, name: String) throws {
        self.name = name
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw Self.failure("can't run \(program.path)", errno) }
        // The program must inherit neither end; its standard output is a copy of the second.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let messages: Int32
        do { messages = try Self.unnamedFile() } catch {
            for end in ends { close(end) }
            throw error
        }
        #if canImport(Darwin)
            var actions: posix_spawn_file_actions_t?
        #else
            var actions = posix_spawn_file_actions_t()
        #endif
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, input?.path ?? "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&actions, messages, STDERR_FILENO)
        var texts = ([program.path] + arguments).map { strdup($0) } + [nil]
        var environment = ProcessInfo.processInfo.environment.map { strdup("\($0)=\($1)") } + [nil]
        defer { for text in texts + environment { free(text) } }
        var process: pid_t = 0
        let status = posix_spawn(&process, program.path, &actions, nil, &texts, &environment)
        close(ends[1])
        guard status == 0 else {
            close(ends[0])
            close(messages)
            throw Self.failure("can't run \(program.path)", status)
        }
        (self.process, output, self.messages) = (process, ends[0], messages)
    }

    deinit {
        close(output)
        if isRunning {
            kill(process, SIGKILL)
            _ = status()
        }
        close(messages)
    }

    /// The next bytes, at most `count`; empty at the end.
    /// - Throws: ``PEFTError`` with the program's error message if it failed.
    package func read(upTo count: Int) throws -> [UInt8] {
        guard isRunning else { return [] }
        let bytes = try [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            var got = Foundation.read(output, buffer.baseAddress, count)
            while got < 0, errno == EINTR { got = Foundation.read(output, buffer.baseAddress, count) }
            guard got >= 0 else { throw Self.failure("can't read \(name)", errno) }
            filled = got
        }
        if bytes.isEmpty { try finish() }
        return bytes
    }

    private func finish() throws {
        isRunning = false
        let status = status()
        guard status != 0 else { return }
        // The exit code is in the second byte, a signal in the first seven bits.
        let end = status & 0x7F == 0 ? "exit code \(status >> 8 & 0xFF)" : "killed by signal \(status & 0x7F)"
        let words = message()
        throw PEFTError(
            "can't read \(name)", remedy: words.isEmpty ? "the program that reads it failed: \(end)" : words)
    }

    /// Waits for the program to end.
    private func status() -> Int32 {
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        return status
    }

    /// The first paragraph of the program's standard error, as one line.
    private func message() -> String {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = pread(messages, &bytes, bytes.count, 0)
        let lines = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self).split(
            omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        let first = lines.drop { $0.allSatisfy(\.isWhitespace) }.prefix { !$0.allSatisfy(\.isWhitespace) }
        let text = first.map { $0.trimmingCharacters(in: .whitespaces) }.joined(separator: " ")
        return text.count > 400 ? text.prefix(400) + " …" : text
    }

    private static func unnamedFile() throws -> Int32 {
        var name = Array((FileManager.default.temporaryDirectory.path + "/peft-messages-XXXXXX").utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else { throw failure("can't create a temporary file", errno) }
        unlink(name)
        return descriptor
    }

    private static func failure(_ problem: String, _ number: Int32) -> PEFTError {
        PEFTError(problem, remedy: String(cString: strerror(number)).lowercased())
    }
}
