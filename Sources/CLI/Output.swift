import Foundation
import Support

/// Files and folders that a command writes. All of them are checked before the work: they don't exist yet, as nothing
/// is overwritten, and they can be written.
enum Output {
    nonisolated(unsafe) private static var written: Set<String> = []

    /// Checks files, such as reports.
    /// - Throws: ``PEFTError`` for one that exists, whose folder doesn't, or that can't be written.
    static func check(_ paths: [String?]) throws {
        var seen: Set<String> = []
        for path in paths.compactMap({ $0 }) {
            let file = url(path)
            try checkIsNew(file, path)
            guard seen.insert(file.standardizedFileURL.path).inserted || AtomicFile.isDevice(file) else {
                throw PEFTError("two outputs have the name \(path)", remedy: "give each a name of its own")
            }
            let parent = file.deletingLastPathComponent().path
            guard FileManager.default.fileExists(atPath: parent) else {
                throw PEFTError("can't write \(path): its folder doesn't exist", remedy: "make the folder first")
            }
            AtomicFile.removeLeftovers(of: file)
            try AtomicFile.checkWritable(file, isFolder: false)
        }
    }

    /// Checks a folder, or a file that is made like one: a model or an adapter.
    /// - Throws: ``PEFTError`` if it exists or can't be written.
    static func folder(_ path: String) throws -> URL {
        let folder = url(path)
        try checkIsNew(folder, path)
        AtomicFile.removeLeftovers(of: folder)
        try AtomicFile.checkWritable(folder, isFolder: true)
        return folder
    }

    /// Writes a file that ``check(_:)`` has seen.
    static func write(_ content: Data, to path: String) throws {
        let file = url(path)
        try AtomicFile.write(content, to: file, replacing: !written.insert(file.path).inserted)
    }

    static func write(_ content: String, to path: String) throws { try write(Data(content.utf8), to: path) }

    static func url(_ path: String) -> URL { URL(fileURLWithPath: NSString(string: path).expandingTildeInPath) }

    private static func checkIsNew(_ output: URL, _ path: String) throws {
        guard !FileManager.default.fileExists(atPath: output.path) || AtomicFile.isDevice(output) else {
            throw PEFTError("the output \(path) exists", remedy: "remove it or name another one")
        }
    }
}
