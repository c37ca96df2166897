import Foundation
import PEFTSupport
import TestSupport
import Testing

/// Runs the program that was built beside the tests.
struct Program {
    struct Result {
        var status: Int32
        var output: String
        var error: String
    }

    /// A folder of its own for each test.
    let folder: URL

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("peft-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    /// A folder with a Llama of 16 hidden units (`llama`) and examples with the fields `q` and `a` (`rows.jsonl`).
    static func withLlama(rows count: Int) throws -> Program {
        let program = try Program()
        let rows = (0..<count).map {
            #"{"q": "Tom \#($0)", "a": "ran \#(String(repeating: "far ", count: $0))away"}"#
        }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let llama = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat/model")
        try FileManager.default.copyItem(at: llama, to: program.folder.appendingPathComponent("llama"))
        return program
    }

    func remove() { try? FileManager.default.removeItem(at: folder) }

    /// The program beside the tests. On Linux the tests are a program themselves, on macOS a bundle that another one loads.
    static var executable: URL {
        #if canImport(Darwin)
            var folder = Bundle(for: Anchor.self).bundleURL
        #else
            var folder = Bundle.main.executableURL ?? URL(fileURLWithPath: CommandLine.arguments[0])
        #endif
        folder = folder.resolvingSymlinksInPath().deletingLastPathComponent()
        return folder.appendingPathComponent("peft")
    }

    /// A class of the test bundle.
    private final class Anchor {}

    func write(_ name: String, _ text: String) throws {
        try text.write(to: folder.appendingPathComponent(name), atomically: true, encoding: .utf8)
    }

    var files: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).sorted() }

    /// The environment of a program under test: one thread, as many programs run side by side, and no hub.
    static let environment = ProcessInfo.processInfo.environment.merging(
        ["OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"]) { _, new in new }

    /// - Parameters:
    ///   - fileSizeLimit: largest file that may be written, in blocks of the shell's `ulimit -f`.
    ///   - redirections: the shell's, such as `>&-` for a closed standard output.
    ///   - environment: variables beside those of ``environment``.
    ///   - directory: the working directory, if not ``folder``.
    func run(
        _ arguments: [String], input: String = "", fileSizeLimit: Int? = nil, redirections: String = "",
        environment: [String: String] = [:], in directory: URL? = nil
    ) throws -> Result {
        let process = Process()
        try #require(
            FileManager.default.isExecutableFile(atPath: Self.executable.path),
            "the program \(Self.executable.path) wasn't built beside the tests")
        process.executableURL = Self.executable
        process.arguments = arguments
        process.environment = Self.environment.merging(environment) { _, new in new }
        if fileSizeLimit != nil || !redirections.isEmpty {
            let limit = fileSizeLimit.map { "ulimit -f \($0); " } ?? ""
            process.executableURL = URL(fileURLWithPath: "/bin/sh")
            process.arguments =
                ["-c", "\(limit)exec \"$@\" \(redirections)", "sh", Self.executable.path] + arguments
        }
        process.currentDirectoryURL = directory ?? folder
        let (output, error, stdin) = (Pipe(), Pipe(), Pipe())
        (process.standardOutput, process.standardError, process.standardInput) = (output, error, stdin)
        try process.run()
        // A program that reads nothing may have ended by now.
        try? stdin.fileHandleForWriting.write(contentsOf: Data(input.utf8))
        try stdin.fileHandleForWriting.close()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        let message = String(decoding: error.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return Result(status: process.terminationStatus, output: text, error: message)
    }

    var model: String { Checkout.tinyT5.path }
}

/// The JSON that the program wrote to standard output.
func json(_ result: Program.Result, sourceLocation: SourceLocation = #_sourceLocation) throws -> JSON {
    #expect(result.status == 0, "\(result.error)", sourceLocation: sourceLocation)
    return try JSON.parse(Data(result.output.utf8), name: "output")
}
