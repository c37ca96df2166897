import Foundation
import PEFTSupport

/// Files and folders that a command writes. All are checked before the work starts: they must be writable and must not
/// exist, because nothing is overwritten.
enum Output {
    nonisolated(unsafe) private static var written: Set<String> = []

    /// Checks output files, such as reports.
    /// - Throws: ``PEFTError`` if one exists, lacks its folder, or is not writable.
    static func check(_ paths: [String?]) throws {
        var seen: Set<String> = []
        for path in paths.compactMap({ $0 }) {
            let file = url(path)
            try checkIsNew(file, path)
            guard seen.insert(file.standardizedFileURL.path).inserted || AtomicFile.isDevice(file) else {
                throw PEFTError("two outputs have the same path \(path)", remedy: "use different paths")
            }
            let parent = file.deletingLastPathComponent().path
            guard FileManager.default.fileExists(atPath: parent) else {
                throw PEFTError("can't write \(path): its folder doesn't exist", remedy: "create the folder first")
            }
            AtomicFile.removeLeftovers(of: file)
            try AtomicFile.checkWritable(file, isFolder: false)
        }
    }

    /// Checks the output folder (or file) of a model or an adapter.
    /// - Throws: ``PEFTError`` if it exists or is not writable.
    static func folder(_ path: String) throws -> URL {
        let folder = url(path)
        try checkIsNew(folder, path)
        AtomicFile.removeLeftovers(of: folder)
        try AtomicFile.checkWritable(folder, isFolder: true)
        return folder
    }

    /// Writes a file that ``check(_:)`` has checked.
    static func write(_ content: Data, to path: String) throws {
        let file = url(path)
        try AtomicFile.write(content, to: file, replacing: !written.insert(file.path).inserted)
    }

    static func write(_ content: String, to path: String) throws { try write(Data(content.utf8), to: path) }

    static func url(_ path: String) -> URL { URL(fileURLWithPath: NSString(string: path).expandingTildeInPath) }

    private static func checkIsNew(_ output: URL, _ path: String) throws {
        guard !FileManager.default.fileExists(atPath: output.path) || AtomicFile.isDevice(output) else {
            throw PEFTError("the output \(path) exists", remedy: "remove it or use another path")
        }
    }
}
