import ArgumentParser
import Foundation
import PEFTSupport

/// `peft serve`: replaces the process by `peft-server`, which is a program of its own, as only it needs the packages of
/// an HTTP server.
struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve a base model and many adapters over OpenAI's API.",
        discussion: """
            peft serve --model my-model --adapter mail=adapters/mail --port 8000

            Runs peft-server, the program beside this one, with the same options; peft serve --help lists them. make
            server builds it. docs/serving.md describes the endpoints.
            """)

    @Argument(parsing: .captureForPassthrough, help: "Options of peft-server.") var arguments: [String] = []

    func run() throws { try Self.run(arguments) }

    /// Runs the server in place of this process.
    /// - Throws: ``PEFTError`` if it isn't there or can't be run.
    static func run(_ arguments: [String]) throws {
        let program = try server(besides: Bundle.main.executableURL)
        var words: [UnsafeMutablePointer<CChar>?] = ([program.path] + arguments).map { strdup($0) }
        words.append(nil)
        defer { for word in words { free(word) } }
        // The server sets its own.
        signal(SIGPIPE, SIG_DFL)
        execv(program.path, words)
        throw PEFTError(
            "can't run \(program.path): \(String(cString: strerror(errno)))",
            remedy: "build it again with make server")
    }

    /// The server's program in the folder of this one.
    static func server(besides own: URL?) throws -> URL {
        let folder = (own ?? URL(fileURLWithPath: CommandLine.arguments[0])).resolvingSymlinksInPath()
            .deletingLastPathComponent()
        let program = folder.appendingPathComponent("peft-server")
        guard FileManager.default.isExecutableFile(atPath: program.path) else {
            throw PEFTError("there is no peft-server in \(folder.path)", remedy: "build it with make server")
        }
        return program
    }
}
