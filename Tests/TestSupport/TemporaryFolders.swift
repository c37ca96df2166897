import Foundation

/// Calls `body` with a new folder that is removed afterwards.
package func withTemporaryFolder<Result>(_ body: (URL) throws -> Result) throws -> Result {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("peft-test-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder)
}

/// Calls `body` with a copy of a folder that is removed afterwards.
package func withTemporaryCopy<Result>(of folder: URL, _ body: (URL) throws -> Result) throws -> Result {
    try withTemporaryFolder { parent in
        let copy = parent.appendingPathComponent(folder.lastPathComponent)
        try FileManager.default.copyItem(at: folder, to: copy)
        return try body(copy)
    }
}

/// Calls `body` with a new file of a name and content, alone in a folder that is removed afterwards.
package func withTemporaryFile<Result>(
    _ name: String, _ content: some Collection<UInt8>, _ body: (URL) throws -> Result
) throws -> Result {
    try withTemporaryFolder { folder in
        let file = folder.appendingPathComponent(name)
        try Data(content).write(to: file)
        return try body(file)
    }
}

package func withTemporaryFile<Result>(_ name: String, _ text: String, _ body: (URL) throws -> Result) throws
    -> Result
{
    try withTemporaryFile(name, text.utf8, body)
}
