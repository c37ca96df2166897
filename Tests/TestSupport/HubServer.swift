import Foundation
import PEFTSupport

/// The test hub `Tests/HubTests/Server/hub_server.py`, which serves the repositories below `folder/repos` on a port of
/// this machine, and logs requests in `folder/requests.jsonl`.
package final class HubServer {
    /// The server's address.
    package let endpoint: String
    private let process = Process()
    /// The server ends with its standard input.
    private let input = Pipe()

    /// The Python that runs the server; `nil` if there is none in `PATH`.
    package static let python: URL? = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        .map { URL(fileURLWithPath: String($0)).appendingPathComponent("python3") }
        .first { FileManager.default.isExecutableFile(atPath: $0.path) }

    /// Starts the server and waits until it listens.
    package init(folder: URL) throws {
        guard let python = Self.python else { throw PEFTError("there is no python3 in PATH") }
        process.executableURL = python
        process.arguments = [
            Checkout.root.appendingPathComponent("Tests/HubTests/Server/hub_server.py").path, folder.path,
        ]
        let output = Pipe()
        (process.standardOutput, process.standardInput) = (output, input)
        try process.run()
        var line = Data()
        while !line.contains(0x0A), case let part = output.fileHandleForReading.availableData, !part.isEmpty {
            line += part
        }
        guard let port = try JSON.parse(line, name: "the test server's ports")["hub"]?.int else {
            throw PEFTError("the test server has no port")
        }
        endpoint = "http://127.0.0.1:\(port)"
    }

    package func stop() {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }
}
