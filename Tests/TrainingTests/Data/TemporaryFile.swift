import Foundation
import Support
import Testing

@testable import Training

/// Runs `body` with a file of the given name and content in a folder of its own.
func withFile<Result>(
    _ name: String, _ content: some Collection<UInt8>, _ body: (URL) throws -> Result
) throws -> Result {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("data-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let url = folder.appendingPathComponent(name)
    try Data(content).write(to: url)
    return try body(url)
}

func read(_ name: String, _ content: String, limit: Int? = nil) throws -> [Row] {
    try withFile(name, content.utf8) { try DataSet.read($0, limit: limit) }
}

/// The error's one line, with the temporary folder's path left out.
func message(of body: () throws -> Void) -> String {
    do {
        try body()
        return "no error"
    } catch let error as PEFTError {
        return error.description.split(separator: " ").map { word in
            word.hasPrefix("/") ? word.split(separator: "/").last ?? word : word
        }.joined(separator: " ")
    } catch { return "not a PEFTError: \(error)" }
}
